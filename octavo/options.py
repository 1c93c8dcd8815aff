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
