"""`octavo plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import show, terminal
from octavo.options import Json, Out
from octavo.profiles.errors import ConfigError


def plan(
    scenario: Annotated[str, typer.Argument(help="A built-in scenario's name, or a YAML file.")],
    change: Annotated[list[str] | None, typer.Option("--set", help="a.b=c sets, a.b*=0.7 scales; repeatable.")] = None,
    what_if: Annotated[
        list[str] | None, typer.Option(help="Plan again with a.b*=0.7, joined by ;. Repeatable.")
    ] = None,
    hardware: Annotated[list[str] | None, typer.Option(help="Only these devices; repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many runs decide; the scenario says otherwise.", min=1)] = None,
    queries: Annotated[int | None, typer.Option(help="Queries per run.", min=1)] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; all cores by default.", min=1)] = None,
    emit: Annotated[Path | None, typer.Option(help="Write what deploys and checks the plan to this folder.")] = None,
    image: Annotated[str | None, typer.Option(help="The container image that --emit names.")] = None,
    co2: Annotated[bool, typer.Option("--co2", help="Show the carbon too.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Find the cheapest fleet that carries a scenario's traffic within its targets, and say why not a cheaper one.

    Exits with 3 when no fleet meets the targets; the closest one and what it misses are named.
    """
    from octavo.profiles import load_scenario
    from octavo.simulator.plan import Space, lines
    from octavo.simulator.plan import emit as deploy
    from octavo.simulator.plan import plan as find

    if (emit is None) != (image is None):
        raise ConfigError("plan: --emit and --image go together: manifests name the image that runs the bundle")
    loaded = load_scenario(scenario, overrides=change or [])
    with terminal.watching() as watch:
        found = find(
            loaded,
            space=Space(hardware=tuple(hardware) if hardware else None),
            seeds=list(range(seeds)) if seeds else None,
            queries=queries,
            what_if=what_if or [],
            jobs=jobs,
            progress=lambda stage, share: watch(stage, share, ""),
        )
    if out:
        show.write(out, found.to_json())
    written = deploy(found, emit, image=str(image)) if emit else []
    if json:
        print(found.to_json(), end="")
    else:
        terminal.say("\n".join([*lines(found, co2=co2), *(f"wrote {path}" for path in written)]))
