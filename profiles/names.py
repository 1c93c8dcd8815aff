"""Whether the tiers and experts that a scenario names are there, looked up in its plain data.

So a wrong name is said beside all else that is wrong, and not only once the rest has been mended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from octavo.profiles.ensemble import expert_name
from octavo.profiles.problems import suggest
from octavo.profiles.read import Data
from octavo.profiles.resolve import references

TIERS = ("fleet.placement.*.tier", "fleet.links.*.between.*", "fleet.operations.outages.*.tier")
EXPERTS = ("ensemble.policy.expert", "ensemble.policy.first")
PLACED = ("fleet.placement.*.of", "fleet.placement.*.of.*")
DOWN = ("fleet.operations.down.*",)
MANY = 100_000
"""Experts of a group beyond which their names are not made out."""


def strangers(data: Data) -> list[str]:
    """A line for each name of a tier or of an expert that the scenario does not have."""
    fleet, ensemble = _mapping(data.get("fleet")), _mapping(data.get("ensemble"))
    tiers, experts = fleet.get("tiers"), experts_of(ensemble.get("experts"))
    found = list(_absent(data, TIERS, "tier", tiers)) if isinstance(tiers, dict) else []
    if experts is not None:
        judge = ["value"] if _mapping(ensemble.get("value")).get("kind") == "model" else []
        found += _absent(data, EXPERTS, "expert", experts)
        found += _absent(data, PLACED, "expert", [*experts, "experts", "value"])
        found += _absent(data, DOWN, "model", [*experts, *judge])
    return found


def _absent(data: Data, places: tuple[str, ...], what: str, there: Iterable[str]) -> Iterator[str]:
    known = set(there)
    for path, name in references(data, places):
        if name not in known:
            yield f"{path}: {name!r} -> no such {what}; {suggest(name, known)}"


def experts_of(groups: Any) -> list[str] | None:
    """Names of the experts that these groups make; None where that cannot be made out."""
    names: list[str] = []
    for group in groups if isinstance(groups, list) else [groups]:
        name, count = _mapping(group).get("name"), _mapping(group).get("count", 1)
        known = isinstance(group, dict) and isinstance(name, str | None) and type(count) is int
        if not known or not 0 < count <= MANY:
            return None
        names += [expert_name(name, count, index, len(names) + index) for index in range(count)]
    return names


def _mapping(value: Any) -> Data:
    return value if isinstance(value, dict) else {}
