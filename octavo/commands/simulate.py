"""`octavo simulate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo import replays, show, terminal
from octavo.options import Json, Out
from octavo.profiles.errors import ConfigError

if TYPE_CHECKING:
    from octavo.profiles.scenario import Scenario
    from octavo.simulator.result import Result
    from octavo.simulator.run import Progress


def simulate(
    scenario: Annotated[str | None, typer.Argument(help="A built-in scenario's name, or a YAML file.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="a.b=c sets, a.b*=0.7 scales; repeatable.")] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="What `octavo measure` wrote: simulate its load. With a scenario: a real server's recording."
        ),
    ] = None,
    gate: Annotated[
        list[str] | None, typer.Option(help="With --replay: metric=share, like tpot_mean=0.03; repeatable.")
    ] = None,
    outcomes: Annotated[Path | None, typer.Option(help="Candidates as `octavo eval` recorded them.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many runs; the scenario says otherwise.", min=1)] = None,
    queries: Annotated[int | None, typer.Option(help="Queries per run.", min=1)] = None,
    until_ci: Annotated[
        str | None, typer.Option(help="Add seeds until p95 latency is known so well, like 2%; 64 seeds at most.")
    ] = None,
    band: Annotated[bool, typer.Option(help="Let intervals hold the step times' error band too.")] = True,
    baselines: Annotated[bool, typer.Option(help="Simulate the scenario's baselines too.")] = True,
    trace_out: Annotated[Path | None, typer.Option(help="Write the first seed's trace, JSON Lines.")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Simulate serving an ensemble: latency, $/query, energy, beside its baselines.

    The scheduler and the policies are the runtime's own; only the seconds of a step are estimated. An overloaded fleet
    is called overloaded. `octavo profiles list scenarios` names the built-in ones.

    With --replay, simulated beside measured: the error of each metric, and exit code 6 when one is larger than a
    --gate allows. Recordings of LLMServingSim, vLLM's bench, GuideLLM and AIPerf are read, and plain tables.
    """
    if scenario is None and replay is None:
        raise ConfigError("simulate: give a scenario, or --replay FOLDER, or a scenario and --replay RECORDING")
    if replay:
        if seeds or queries or until_ci or outcomes or (change and not scenario):
            raise ConfigError("simulate: with --replay the load is the recorded one; a scenario alone may be changed")
        if scenario:
            replays.simulate_recorded(scenario, replay, change or [], gate or [], out, trace_out, as_json=json)
        else:
            replays.simulate_replay(replay, gate or [], out, trace_out, as_json=json)
        return
    if gate:
        raise ConfigError("simulate: --gate compares with what was measured, so it needs --replay")
    from octavo.profiles import load_scenario
    from octavo.simulator.band import banded

    if until_ci and (seeds or trace_out):
        raise ConfigError(
            "simulate: --until-ci chooses the seeds and keeps no trace; leave out --seeds and --trace-out"
        )
    sets = [*(change or []), *([f"workload.queries={queries}"] if queries else [])]
    sets += [f"outcomes={{kind: records, file: {outcomes.resolve()}}}"] if outcomes else []
    loaded = load_scenario(str(scenario), overrides=sets)
    chosen = list(range(seeds)) if seeds else None
    with terminal.watching() as watch:
        progress = lambda name, share: watch(name, share, "")  # noqa: E731
        results = _results(loaded, chosen, _share(until_ci), progress, baselines=baselines, trace=trace_out is not None)
        if band:
            results = [banded(result, progress) for result in results]
    show.simulation(results, out, trace_out, as_json=json)


def _results(
    scenario: Scenario,
    seeds: list[int] | None,
    within: float | None,
    progress: Progress,
    *,
    baselines: bool,
    trace: bool,
) -> list[Result]:
    """The scenario, and its baselines after it where they are asked for."""
    from octavo.profiles import baselines as baselines_of
    from octavo.simulator.run import simulate, simulate_until

    others = baselines_of(scenario) if baselines else {}
    if within is not None:
        every = {scenario.name: scenario, **others}
        return [replace(simulate_until(s, within, progress=progress), name=name) for name, s in every.items()]
    first = simulate(scenario, seeds=seeds, progress=progress, trace=trace)
    return [first, *(simulate(s, seeds=seeds, progress=progress, name=name) for name, s in others.items())]


def _share(text: str | None) -> float | None:
    """2% or 0.02."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ConfigError(f"--until-ci {text!r}: write a share between 0 and 1, like 2%")
    return share
