"""What the page asks of the simulator and the planner; equal questions are answered once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from octavo.profiles.errors import OctavoError
from octavo.profiles.load import vary
from octavo.simulator.plan import Infeasible, Space, plan
from octavo.simulator.plan.line import words
from octavo.simulator.result import Result
from octavo.simulator.run import simulate
from octavo.simulator.studio.choices import SEED, Choices, policies, scenario_of

FEW = 60  # queries of each policy that is compared
PLANNED = 100  # queries of the one run that decides about a fleet


@dataclass(frozen=True, slots=True)
class PolicyPoint:
    """A policy on the chosen fleet: `usd` is the price of the device time that a query keeps busy."""

    policy: str
    usd: float
    accuracy: float
    latency_p95: float | None


@dataclass(frozen=True, slots=True)
class Planned:
    """The cheapest fleet of the chosen device for the chosen traffic and target; without a price, why there is none."""

    fleet: str
    usd_per_hour: float | None


@lru_cache(maxsize=512)
def answered(choices: Choices) -> Result:
    """One run. Raises ConfigError."""
    return simulate(scenario_of(choices), seeds=[SEED])


@lru_cache(maxsize=64)
def compared(choices: Choices) -> tuple[PolicyPoint, ...]:
    """Every policy on this fleet at this traffic, less those that cannot run there.

    The tuple is empty where nothing is known of how often answers are right.
    """
    return tuple(point for name in policies(choices.scenario) if (point := _point(replace(choices, policy=name))))


def _point(choices: Choices) -> PolicyPoint | None:
    try:
        result = simulate(vary(scenario_of(choices), {"workload": {"queries": FEW}}), seeds=[SEED])
    except OctavoError:
        return None
    if "accuracy" not in result.metrics:
        return None
    busy = result["usd_per_query"] * result["utilisation"]
    return PolicyPoint(choices.policy, busy, result["accuracy"], None if result.overloaded else result["latency_p95"])


@lru_cache(maxsize=64)
def planned(choices: Choices) -> Planned:
    """Raises ConfigError where the planner cannot plan such a scenario."""
    space = Space(hardware=(choices.hardware,))
    try:
        found = plan(scenario_of(choices), space=space, seeds=[SEED], queries=PLANNED, jobs=1)
    except Infeasible as none:
        return Planned(str(none), None)
    return Planned(words(found.best, found.scenario), found.best.usd_per_hour)
