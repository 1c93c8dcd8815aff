"""N-1: what is left of a fleet when any one of its devices is away, and so the replica that it is part of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from octavo.profiles.fleet import Placement
from octavo.profiles.policy import Cascade
from octavo.profiles.scenario import Scenario
from octavo.simulator.panel import VALUE, slots

if TYPE_CHECKING:
    from octavo.simulator.result import Result


def victims(scenario: Scenario) -> tuple[str, ...]:
    """Models that a replica can be taken from, one of each kind: experts that are asked alike are missed alike."""
    asked = {name for name, _ in slots(scenario)} | {VALUE}
    kinds: dict[object, str] = {}
    for index, place in enumerate(scenario.fleet.placement):
        for name in scenario.names_of(place):
            if name in asked:
                kinds.setdefault((index, _kind(scenario, name) if place.mode == "dedicated" else None), name)
    return tuple(dict.fromkeys(kinds.values()))


def _kind(scenario: Scenario, name: str) -> object:
    if name == VALUE:
        return name
    policy, expert = scenario.ensemble.policy, scenario.expert(name)
    first = isinstance(policy, Cascade) and policy.first == name
    return expert.model, expert.precision, expert.accuracy, first


def lost(scenario: Scenario) -> tuple[str, ...]:
    """Models that no device has while the replicas of `operations.down` are away."""
    return tuple(name for place in scenario.fleet.placement for name in _lost(scenario, place))


def _lost(scenario: Scenario, place: Placement) -> Iterator[str]:
    names, down = scenario.names_of(place), scenario.fleet.operations.down
    sets = [(name,) for name in names] if place.mode == "dedicated" else [names]
    for together in sets:
        if sum(name in together for name in down) >= place.replicas:
            yield from together


def silenced(scenario: Scenario) -> str | None:
    """Why no query can be answered while those replicas are away, or None."""
    gone = lost(scenario)
    made = [name not in gone for name, _ in slots(scenario)]
    needed = min(scenario.ensemble.min_candidates, len(made))
    if sum(made) >= max(1, needed):
        return None
    return f"no answers: {sum(made)} of {len(made)} candidates are left, {max(1, needed)} needed"


def with_spares(result: Result, without: dict[str, Result | str]) -> Result:
    """The result, with what it comes to while each of these models lacks a replica (or why there is no answer then)."""
    missed, notes = [], []
    for name, found in without.items():
        where = f"without a replica of {name}: "
        if isinstance(found, str) or found.overloaded:
            missed.append(where + (found if isinstance(found, str) else f"it does not keep up, {found.overloaded}"))
            continue
        missed += [where + text for text in found.missed]
        shown = [
            f"{metric} {found[metric]:.4g}"
            for metric in ("latency_p95", "availability", "accuracy")
            if metric in found.metrics
        ]
        notes.append(where + ", ".join(shown))
    return replace(result, spare_missed=tuple(missed), notes=(*result.notes, *notes))
