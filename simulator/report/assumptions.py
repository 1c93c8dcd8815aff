"""Every number that a simulation started from, with the source it has; estimates and rumours are called so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from octavo.simulator.report.blocks import Table, table
from octavo.simulator.report.document import Simulation
from octavo.simulator.report.numbers import digits

_TABLES = ("hardware", "models", "prices", "links")
_UNITS = {
    "memory": "B",
    "bandwidth": "B/s",
    "flops": "FLOP/s",
    "interconnect": "B/s",
    "host_bandwidth": "B/s",
    "idle_watts": "W",
    "peak_watts": "W",
    "usd_per_hour": "USD/h",
    "purchase_usd": "USD",
    "amortisation_years": "years",
    "usd_per_kwh": "USD/kWh",
    "carbon": "g/kWh",
    "egress": "USD/B",
    "rtt": "s",
    "jitter": "s",
    "interconnect_latency": "s",
    "step_overhead": "s",
    "layer_overhead": "s",
    "sequence_overhead": "s",
    "max_context": "tokens",
    "rate": "/s",
}
_PREFIXES = ("", "k", "M", "G", "T", "P")


def is_rumour(simulation: Simulation) -> bool:
    """Whether a model of the scenario is one that nobody has confirmed."""
    return any(model.get("rumour") for model in simulation.scenario.get("models", {}).values())


def assumptions(simulation: Simulation) -> Table | None:
    """One row per profile and source."""
    rows = [row for profile in _profiles(simulation.scenario) for row in _rows(profile)]
    columns = ("profile", "what", "source", "date", "kind")
    return table(f"Where the numbers of “{simulation.name}” come from", columns, rows) if rows else None


def _profiles(scenario: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in _TABLES:
        yield from scenario.get(kind, {}).values()
    if isinstance(workload := scenario.get("workload"), Mapping):
        yield workload


def _rows(profile: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for source in profile.get("sources", ()):
        said = ", ".join(text for path in source["of"] if (text := _said(profile, path)))
        yield profile.get("name", ""), said, source["source"], source["date"], _kind(profile, source)


def _kind(profile: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    if profile.get("rumour"):
        return "RUMOUR"
    return "estimate" if source.get("estimate") else "published"


def _said(profile: Mapping[str, Any], path: str) -> str:
    """The field and its value, in the multiple that people use; nothing where the profile leaves it out."""
    value: Any = profile
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        return ""
    text = _written(value, _UNITS.get(path.rsplit(".", 1)[-1], ""))
    return f"{path.replace('_', ' ')} {text}".strip()


def _written(value: Any, unit: str) -> str:
    match value:
        case bool() | str():
            return str(value)
        case int() | float():
            return _multiple(float(value), unit)
        case [int() | float() as low, int() | float() as high]:
            return _multiple(low, unit) if low == high else f"{_multiple(low, '')}–{_multiple(high, unit)}"
        case dict():
            said = (f"{key} {_written(inner, _UNITS.get(key, unit))}".strip() for key, inner in value.items())
            return "; ".join(text.removeprefix("kind ") for text in said if text != "quantiles")
    return ""


def _multiple(value: float, unit: str) -> str:
    if unit == "USD/B":
        return f"{digits(value * 1e9)} USD/GB"
    if 0 < abs(value) < 0.01 and unit == "s":
        return f"{digits(value * 1e6)} µs"
    power = min(5, int(math.log10(abs(value)) // 3)) if abs(value) >= 1e5 else 0
    return f"{digits(value / 1000**power, 4)} {_PREFIXES[power]}{unit}".strip()
