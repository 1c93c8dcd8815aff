"""What the error band of the step times means for the answer: everything again with shorter and with longer steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from octavo.profiles.fleet import Operations
from octavo.profiles.scenario import Scenario
from octavo.simulator.estimate import Estimate
from octavo.simulator.metrics import estimates
from octavo.simulator.result import Result
from octavo.simulator.run import Kept, Progress, Task, all_runs

ENOUGH = 50_000
"""Queries from which on a change on the same arrivals and lengths is known well enough, in a steady system."""
REMEMBERS = 2.0
"""How many times as long queries may take with longer steps while that many are enough: a queue near capacity changes
slowly. One that only grows has no length that is enough."""


def banded(result: Result, progress: Progress | None = None) -> Result:
    """The result with its intervals widened by what changes when every step is shorter, or longer, by the band.

    The changes are those of the first seed's run, on the same arrivals and lengths; they are added to the bounds that
    the seeds give. A system that only keeps up when steps are as short as estimated is noted.
    """
    if result.overloaded or not any(result.band):
        return result
    short = _shortened(result.scenario)
    base, fast, slow = _three(result, short, f"{result.name}, error band", progress)
    changed = slow.sample.latency.mean() > REMEMBERS * base.sample.latency.mean()
    if changed and short is not result.scenario and not slow.overloaded:
        base, fast, slow = _three(result, result.scenario, f"{result.name}, error band, longer", progress)
    notes = result.notes
    if slow.overloaded:
        notes = (*notes, f"OVERLOADED if steps take {result.band[1]:.0%} longer than estimated, which they may")
    others = [_changes(base, other) for other in (fast, slow)]
    metrics = {
        name: _widened(each, [change[name](each.value) for change in others if name in change])
        for name, each in result.metrics.items()
    }
    return replace(result, metrics=metrics, notes=notes, banded=True)


def _shortened(scenario: Scenario) -> Scenario:
    """A long run of a system in which nothing but queries comes and goes, cut to as many as are enough."""
    workload = scenario.workload
    steady = workload.arrivals.kind in ("poisson", "gamma", "weibull", "closed_loop")
    if not steady or (workload.queries or 0) <= ENOUGH or scenario.fleet.operations != Operations():
        return scenario
    return scenario.model_copy(update={"workload": workload.model_copy(update={"queries": ENOUGH})})


def _three(result: Result, scenario: Scenario, name: str, progress: Progress | None) -> list[Kept]:
    """Runs with steps as estimated, with shorter and with longer ones."""
    shorter, longer = result.band
    tasks = [Task(scenario, result.seeds[0], pace=1 + by) for by in (0.0, -shorter, longer)]
    return all_runs(tasks, name, progress)


def _changes(base: Kept, other: Kept) -> Mapping[str, Callable[[float], float]]:
    """How much larger each metric of the other run is, in proportion: a total is that of a shorter run."""
    before, after = estimates([base.sample]), estimates([other.sample])
    return {name: partial(_change, before[name].value, after[name].value) for name in before if name in after}


def _change(before: float, after: float, value: float) -> float:
    return (after - before) * (value / before if before else 1.0)


def _widened(estimate: Estimate, changes: list[float]) -> Estimate:
    if estimate.low is None or estimate.high is None:
        if not any(changes):
            return estimate
        estimate = Estimate(estimate.value, estimate.value, estimate.value)
    assert estimate.low is not None
    assert estimate.high is not None
    low, high = min([0.0, *changes]), max([0.0, *changes])
    return Estimate(estimate.value, estimate.low + low, estimate.high + high)
