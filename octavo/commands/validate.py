"""`octavo validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import replays
from octavo.options import Json, Out


def validate(
    measured: Annotated[Path, typer.Argument(help="The trace of a real run, JSON Lines.")],
    simulated: Annotated[Path, typer.Argument(help="The trace of a simulation of the same queries.")],
    gate: Annotated[list[str] | None, typer.Option(help="metric=share, like latency_p50=0.03; repeatable.")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Compare two traces of one load: the error of each metric with its 95 % interval.

    Exits with 6 when an error is larger than a --gate allows.
    """
    replays.compare(measured, simulated, gate or [], out, as_json=json)
