"""`octavo measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import show, terminal
from octavo.options import (
    Bundle,
    CudaGraphs,
    Devices,
    Fallback,
    Json,
    Kernels,
    Prepack,
    Provider,
    Seed,
    Threads,
    several,
)
from octavo.profiles.errors import ConfigError


def measure(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="A folder for the latency profiles, the trace and measure.json.")],
    prompts: Annotated[Path | None, typer.Option(help="Serve a load of this task file's prompts.")] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--replay", help="Serve a recorded load: Mooncake's JSONL, Azure's or BurstGPT's CSV."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Queries a second; by default 0.3 of capacity, or a recording's own.", min=0.0)
    ] = None,
    queries: Annotated[int, typer.Option(help="How many.", min=1)] = 600,
    seconds: Annotated[float, typer.Option(help="How long to time steps.", min=0.1)] = 20.0,
    policy: Annotated[str | None, typer.Option(help="The bundle's own by default.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Seed = 0,
    provider: Provider = None,
    allow_fallback: Fallback = False,
    devices: Devices = None,
    threads: Threads = None,
    prepack: Prepack = False,
    kernels: Kernels = None,
    cuda_graphs: CudaGraphs = False,
    json: Json = False,
) -> None:
    """Time this machine's steps over batch and context, then serve a load in real time and record it.

    Writes latency profiles that the simulator reads, and the trace that `octavo simulate --replay` compares with.
    """
    from octavo.loads import read_load
    from octavo.runtime.measure import measure

    if prompts and trace:
        raise ConfigError("measure: --prompts and --replay are two loads; give one")
    arrivals = read_load(trace, queries=queries, rate=rate) if trace else None
    with terminal.watching() as watch:
        found = measure(
            bundle,
            prompts=prompts,
            arrivals=arrivals,
            rate=rate,
            queries=queries,
            seconds=seconds,
            max_new_tokens=max_new_tokens,
            policy=policy,
            seed=seed,
            out=out,
            progress=lambda stage, share: watch(stage, share, ""),
            provider=provider,
            allow_fallback=allow_fallback,
            devices=several(devices),
            threads=threads,
            prepack=prepack,
            kernels=kernels,
            cuda_graphs=cuda_graphs,
        )
    show.measurement(found, out, as_json=json)
