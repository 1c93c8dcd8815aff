"""Every number that a simulation started from, with the source it has; estimates and rumours are called so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from octavo.profiles import load_hardware, load_link, load_model, load_price, load_workload
from octavo.profiles.errors import ConfigError
from octavo.profiles.fact import Fact
from octavo.simulator.report.blocks import Table, table
from octavo.simulator.report.document import Planned, Simulation
from octavo.simulator.report.numbers import NARROW

Profile = Mapping[str, Any]

RUMOUR, ESTIMATE, SOURCED, SET = "RUMOUR", "estimate", "sourced", "set"

_LOADERS: Mapping[str, Callable[[str], Fact]] = {
    "hardware": load_hardware,
    "models": load_model,
    "prices": load_price,
    "links": load_link,
    "workload": load_workload,
}
_FIELDS = {
    "B": "memory",
    "B/s": "bandwidth up_bandwidth interconnect host_bandwidth",
    "FLOP/s": "flops",
    "W": "idle_watts peak_watts",
    "s": "rtt jitter interconnect_latency step_overhead layer_overhead sequence_overhead",
    "/s": "rate",
    "years": "amortisation_years",
    "USD": "purchase_usd",
    "USD/h": "usd_per_hour",
    "USD/kWh": "usd_per_kwh",
    "USD/B": "egress",
    "g/kWh": "carbon",
}
_UNITS = {field: unit for unit, fields in _FIELDS.items() for field in fields.split()}
_LARGE = ("", "k", "M", "G", "T", "P")


def is_rumour(simulation: Simulation | Planned) -> bool:
    """Whether a model of the scenario is one that nobody has confirmed."""
    return any(model.get("rumour") for model in simulation.scenario.get("models", {}).values())


def assumptions(simulation: Simulation | Planned) -> Table | None:
    """One row per profile and source, its values beside it; what the scenario set itself is told apart."""
    rows = [row for kind, profile in _profiles(simulation.scenario) for row in _rows(kind, profile)]
    rows += [(key, said, "the scenario itself", "", SET) for key, said in _settings(simulation.scenario)]
    columns = ("profile", "what", "where from", "date", "kind")
    return table(f"Where the numbers of “{simulation.name}” come from", columns, rows) if rows else None


def _profiles(scenario: Mapping[str, Any]) -> Iterator[tuple[str, Profile]]:
    for kind in _LOADERS:
        found = scenario.get(kind, {})
        profiles = [found] if kind == "workload" else found.values()
        yield from ((kind, profile) for profile in profiles if isinstance(profile, Mapping))


def _settings(scenario: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is nobody's fact but the scenario's own choice or guess."""
    for key in ("outcomes", "engine"):
        if said := _written(scenario.get(key), ""):
            yield key, said.replace("_", " ")


def _rows(kind: str, profile: Profile) -> Iterator[tuple[str, ...]]:
    name, published = str(profile.get("name", "")), _published(kind, profile)
    for source in profile.get("sources", ()):
        kept = [path for path in source["of"] if _at(profile, path) == _at(published, path)]
        if said := _said(profile, kept):
            yield name, said, source["source"], source["date"], _kind(profile, source)
        if said := _said(profile, [path for path in source["of"] if path not in kept]):
            yield name, said, "the scenario itself", "", SET


def _published(kind: str, profile: Profile) -> Profile:
    """The profile as it is without this scenario; the given one where there is no other of its name."""
    try:
        return _LOADERS[kind](str(profile.get("name"))).dump()
    except ConfigError:
        return profile


def _kind(profile: Profile, source: Mapping[str, Any]) -> str:
    if profile.get("rumour"):
        return RUMOUR
    return ESTIMATE if source.get("estimate") else SOURCED


def _at(profile: Profile, path: str) -> Any:
    value: Any = profile
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _said(profile: Profile, paths: list[str]) -> str:
    """The fields and their values in the multiples that people use; nothing for those that the profile leaves out."""
    found = [(path.rsplit(".", 1)[-1], value) for path in paths if (value := _at(profile, path)) is not None]
    said = (f"{_words(name)} {_written(value, _UNITS.get(name, ''))}".strip() for name, value in found)
    return ", ".join(said)


def _words(field: str) -> str:
    """The field's name without the unit, which stands after the value."""
    return " ".join(word for word in field.split("_") if word not in ("usd", "watts", "years"))


def _written(value: Any, unit: str) -> str:
    match value:
        case bool() | str():
            return str(value)
        case int() | float():
            return _multiple(float(value), unit)
        case [int() | float() as low, int() | float() as high]:
            return _multiple(low, unit) if low == high else f"{_multiple(low, '')}–{_multiple(high, unit)}"
        case dict():
            inner = {key: _written(part, _UNITS.get(key, unit)) for key, part in value.items()}
            kind = inner.pop("kind", "")
            return "; ".join(filter(None, (kind, *(f"{key} {text}" for key, text in inner.items() if text))))
    return ""


def _multiple(value: float, unit: str) -> str:
    """Four digits at most, and a prefix where the number is large or the unit is seconds and the number small."""
    if unit == "USD/B":
        value, unit = value * 1e9, "USD/GB"
    if unit == "s" and 0 < abs(value) < 1:
        value, unit = (value * 1e3, "ms") if abs(value) >= 1e-3 else (value * 1e6, "µs")
    power = min(5, int(math.log10(abs(value)) // 3)) if abs(value) >= 1e5 else 0
    number = f"{value:,.0f}" if 1000 <= abs(value) < 1e5 else f"{value / 1000**power:.4g}"
    return f"{number}{NARROW}{_LARGE[power]}{unit}".strip(NARROW)
