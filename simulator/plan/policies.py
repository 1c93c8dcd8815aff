"""The policies that a plan may try: as they are written on the command line, and a choice of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from octavo.profiles.ensemble import NoValue
from octavo.profiles.errors import ConfigError
from octavo.profiles.read import parse_yaml
from octavo.profiles.scenario import Scenario

CANDIDATES = (2, 4, 8, 16)
SURE = (0.8, 0.9)


def policies(texts: Iterable[str], scenario: Scenario) -> tuple[Mapping[str, Any], ...]:
    """Each a name, a YAML mapping, or `all`. Raises ConfigError."""
    found: list[Mapping[str, Any]] = []
    for text in texts:
        if text == "all":
            found += every(scenario)
            continue
        data = parse_yaml(text, "--policy")
        data = {"name": data} if isinstance(data, str) else data
        if not isinstance(data, dict) or "name" not in data:
            raise ConfigError(f"--policy: a name or a mapping with one is needed, got {text!r}")
        found.append(data)
    return tuple(found)


def every(scenario: Scenario) -> Iterator[Mapping[str, Any]]:
    """Which, how many candidates, which thresholds; those with a judge where the scenario has one."""
    first = scenario.ensemble.experts[0].name
    several = len(scenario.ensemble.experts) > 1
    yield {"name": "single"}
    yield {"name": "majority"}
    if isinstance(scenario.ensemble.value, NoValue):
        return
    yield from ({"name": "best_of_n", "samples": count} for count in CANDIDATES)
    if several:
        yield from ({"name": "ensemble", "samples_per_expert": count} for count in (1, 2))
        yield from ({"name": "early_exit", "sure_at": sure} for sure in SURE)
        yield from ({"name": "cascade", "first": first, "accept_at": sure} for sure in SURE)
