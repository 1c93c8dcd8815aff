"""`octavo demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import terminal


def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("octavo-demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was done before.")] = False,
) -> None:
    """The whole claim in ten minutes: train, export, ask, eval, measure, simulate, report.

    Prints each stage's own command as it runs it. Started again, it goes on where it was interrupted.
    """
    from octavo.demo import run_demo, summary

    seconds = run_demo(folder, fresh=fresh)
    terminal.say("\n".join(summary(folder, seconds)))
