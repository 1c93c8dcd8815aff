"""`octavo validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import replays
from octavo.options import Json, Out
from octavo.profiles.errors import ConfigError


def validate(
    measured: Annotated[Path | None, typer.Argument(help="The trace of a real run, or a recording.")] = None,
    simulated: Annotated[Path | None, typer.Argument(help="The trace of a simulation of the same queries.")] = None,
    gate: Annotated[list[str] | None, typer.Option(help="metric=share, like latency_p50=0.03; repeatable.")] = None,
    theory: Annotated[bool, typer.Option("--theory", help="Instead, compare with queues of known answer.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="With --theory: seconds rather than minutes.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Compare two traces of one load: the error of each metric with its 95 % interval.

    Exits with 6 when an error is larger than a --gate allows, or when a closed form lies outside its interval.
    """
    if theory:
        if measured or gate:
            raise ConfigError("validate: --theory takes no traces and no --gate")
        replays.theory(out, quick=quick, as_json=json)
        return
    if measured is None or simulated is None or quick:
        raise ConfigError("validate: give two traces, the measured and the simulated, or --theory [--quick]")
    replays.compare(measured, simulated, gate or [], out, as_json=json)
