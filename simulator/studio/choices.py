"""What one side of the page is set to, and the scenario that this is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from octavo.profiles.catalog import list_profiles
from octavo.profiles.ensemble import NoValue
from octavo.profiles.errors import ConfigError
from octavo.profiles.load import load_hardware, load_scenario, vary
from octavo.profiles.scenario import Scenario

SEED = 0
QUERIES = 150  # of the one run behind the numbers of a side; the page answers within a second
PLAIN = ("single", "majority", "mean_logprob")
JUDGED = ("ensemble", "best_of_n", "weighted_vote", "early_exit", "cascade", "pruned")

WHOLE = ("ensemble", "majority", "weighted_vote", "mean_logprob")  # ask everybody, so that a least number makes sense


@dataclass(frozen=True, slots=True)
class Choices:
    """A scenario's name and what is set differently. `rate` in queries per second, `latency_p95` in seconds.

    `hardware` and `replicas` are those of the tier with the most devices. With a `spare` the target must hold with any
    one device away, too.
    """

    scenario: str
    hardware: str
    replicas: int
    policy: str
    samples: int
    rate: float
    latency_p95: float
    spare: bool = False


@cache
def built_in(name: str) -> Scenario:
    """The scenario as it is, without its baselines, with a run short enough for the page."""
    scenario = load_scenario(name)
    if scenario.workload.rate is None:
        raise ConfigError(f"studio: {name}: workload.arrivals: needs a rate to set")
    return vary(scenario, {"baselines": [], "seeds": [SEED], "workload": {"queries": QUERIES, "duration": None}})


def scenarios() -> list[str]:
    """The built-in scenarios and the user's own that have a rate of arrivals."""
    return [row["name"] for row in list_profiles("scenarios") if load_scenario(row["name"]).workload.rate is not None]


def defaults(name: str) -> Choices:
    """The scenario as its file says."""
    scenario = built_in(name)
    place = scenario.fleet.placement[_place(scenario)]
    rate, target = scenario.workload.rate, scenario.targets.latency_p95
    assert rate is not None
    samples = scenario.ensemble.samples_per_expert
    policy = scenario.ensemble.policy.name
    return Choices(name, place.hardware, place.replicas, policy, samples, rate, target or 30.0)


def policies(name: str) -> list[str]:
    """Those that the scenario's ensemble can follow, its own first."""
    scenario = built_in(name)
    own = scenario.ensemble.policy.name
    judged = () if isinstance(scenario.ensemble.value, NoValue) else JUDGED
    return list(dict.fromkeys((own, *judged, *PLAIN)))


def devices(name: str) -> list[str]:
    """Devices that can be had as the scenario's tier buys them, of the kinds that it has now."""
    scenario = built_in(name)
    place = scenario.fleet.placement[_place(scenario)]
    basis, kind = scenario.fleet.tiers[place.tier].basis, scenario.hardware_of(place).kind
    known = [row["name"] for row in list_profiles("hardware")]
    sold = [each for each in known if (h := load_hardware(each)).kind == kind and h.usd_per_hour(basis) is not None]
    return list(dict.fromkeys([place.hardware, *sold]))


def scenario_of(choices: Choices) -> Scenario:
    """Raises ConfigError, such as for models that don't fit the device."""
    scenario = built_in(choices.scenario)
    tier = scenario.fleet.placement[_place(scenario)].tier
    spare = {"n_minus_1": {"latency_p95": choices.latency_p95}} if choices.spare else {}
    ours = {"hardware": choices.hardware, "replicas": choices.replicas}
    placement = [place.model_dump() | (ours if place.tier == tier else {}) for place in scenario.fleet.placement]
    return vary(
        scenario,
        {
            "fleet": {"placement": placement, "tiers": {tier: {"devices": {}}}},
            "ensemble": {
                "policy": _policy(scenario, choices.policy),
                "samples_per_expert": choices.samples,
                "min_candidates": scenario.ensemble.min_candidates if choices.policy in WHOLE else 1,
            },
            "workload": {"arrivals": {"rate": choices.rate}},
            "targets": {"latency_p95": choices.latency_p95, **spare},
        },
    )


def _policy(scenario: Scenario, name: str) -> dict[str, Any]:
    own = scenario.ensemble.policy
    if own.name == name:
        return own.model_dump()
    return {"name": name} | ({"first": scenario.ensemble.experts[0].name} if name == "cascade" else {})


def _place(scenario: Scenario) -> int:
    """The placement with the most devices."""
    places = scenario.fleet.placement
    return max(range(len(places)), key=lambda index: scenario.devices_of(places[index]))
