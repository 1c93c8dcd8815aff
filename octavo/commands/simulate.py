"""`octavo simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import replays, show, terminal
from octavo.options import Json, Out
from octavo.profiles.errors import ConfigError


def simulate(
    scenario: Annotated[str | None, typer.Argument(help="A built-in scenario's name, or a YAML file.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="a.b=c sets, a.b*=0.7 scales; repeatable.")] = None,
    replay: Annotated[Path | None, typer.Option(help="What `octavo measure` wrote: simulate its load.")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="Candidates as `octavo eval` recorded them.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many runs; the scenario says otherwise.", min=1)] = None,
    queries: Annotated[int | None, typer.Option(help="Queries per run.", min=1)] = None,
    baselines: Annotated[bool, typer.Option(help="Simulate the scenario's baselines too.")] = True,
    trace_out: Annotated[Path | None, typer.Option(help="Write the first seed's trace, JSON Lines.")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Simulate serving an ensemble: latency, $/query, energy, beside its baselines.

    The scheduler and the policies are the runtime's own; only the seconds of a step are estimated. An overloaded fleet
    is called overloaded. `octavo profiles list scenarios` names the built-in ones.
    """
    if (scenario is None) == (replay is None):
        raise ConfigError("simulate: give either a scenario or --replay FOLDER")
    if replay:
        replays.simulate_replay(replay, out, trace_out, as_json=json)
        return
    from octavo.profiles import load_scenario
    from octavo.simulator.run import simulate, simulate_all

    sets = [*(change or []), *([f"workload.queries={queries}"] if queries else [])]
    sets += [f"outcomes={{kind: records, file: {outcomes.resolve()}}}"] if outcomes else []
    loaded = load_scenario(str(scenario), overrides=sets)
    chosen = list(range(seeds)) if seeds else None
    with terminal.watching() as watch:
        progress = lambda name, share: watch(name, share, "")  # noqa: E731
        if baselines:
            results = simulate_all(loaded, seeds=chosen, progress=progress, trace=trace_out is not None)
        else:
            results = [simulate(loaded, seeds=chosen, progress=progress, trace=trace_out is not None)]
    show.simulation(results, out, trace_out, as_json=json)
