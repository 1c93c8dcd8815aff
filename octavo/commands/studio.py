"""`octavo studio`."""

from __future__ import annotations

from typing import Annotated

import typer

from octavo import terminal


def studio(
    scenario: Annotated[str, typer.Argument(help="A built-in scenario, or one of your own folder.")] = "single-box",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8050,
) -> None:
    """Open a what-if page on 127.0.0.1: hardware, policy, traffic and targets to choose, two sides to compare.

    Cost, latency, accuracy and the cheapest fleet follow every change; what is chosen can be saved as a scenario file.
    """
    from octavo.simulator.studio import run_studio

    run_studio(scenario, port, terminal.note)
