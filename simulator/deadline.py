"""Whether a deadline hides an overload: queries that are cut short in time leave no queue behind that could grow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from octavo.profiles.scenario import Scenario
from octavo.simulator.result import Result

CUT = 0.01
"""Share of the queries that end without all they asked for, from which on it is looked at."""
MOST = 5000
"""Queries that tell of an overload."""


def uncovered(result: Result, simulate: Callable[[Scenario], Result]) -> Result:
    """The result, with a note where the system does not keep up but for its deadline: it is simulated without one."""
    scenario = result.scenario
    if scenario.ensemble.deadline is None or result.overloaded or "degraded" not in result.metrics:
        return result
    cut = 1 - result["availability"] * (1 - result["degraded"])
    if cut <= CUT:
        return result
    patient = simulate(_without_deadline(scenario))
    if not patient.overloaded:
        return result
    said = f"OVERLOADED but for the deadline, by which {cut:.0%} of the queries are not done: {patient.overloaded}"
    return replace(result, notes=(*result.notes, said))


def _without_deadline(scenario: Scenario) -> Scenario:
    workload = scenario.workload
    if workload.queries and workload.queries > MOST:
        workload = workload.model_copy(update={"queries": MOST})
    ensemble = scenario.ensemble.model_copy(update={"deadline": None})
    targets = scenario.targets.model_copy(update={"n_minus_1": None})
    return scenario.model_copy(update={"ensemble": ensemble, "workload": workload, "targets": targets})
