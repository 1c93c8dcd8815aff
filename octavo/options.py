"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Out = Annotated[Path | None, typer.Option("--out", help="Also write the result to this file.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Bundle = Annotated[Path, typer.Argument(help="The bundle folder.")]
Provider = Annotated[str | None, typer.Option(help="tensorrt, cuda or cpu; the best that works by default.")]
Fallback = Annotated[bool, typer.Option("--allow-fallback", help="Run on another provider; the result says so.")]
Devices = Annotated[
    str | None, typer.Option(help="cpu:0,cpu:1 or cuda:0,cuda:1: models are dealt out to them, a thread each.")
]
Threads = Annotated[int | None, typer.Option(help="Of each device's calls, on the CPU.", min=1)]
Prepack = Annotated[
    bool, typer.Option("--prepack", help="Keep this processor's form of the weights on disk; processes share it.")
]
Kernels = Annotated[
    bool | None,
    typer.Option("--kernels/--no-kernels", help="Octavo's own products on the CPU; by default where compiled."),
]
CudaGraphs = Annotated[
    bool, typer.Option("--cuda-graphs", help="Record each decode call once and replay it; on one GPU, with CUDA.")
]


def several(devices: str | None) -> list[str] | None:
    """The names in a list with commas; None: not asked for."""
    return None if devices is None else [name.strip() for name in devices.split(",") if name.strip()]
