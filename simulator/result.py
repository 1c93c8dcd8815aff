"""The result of a simulation: metrics with intervals, costs, tracks of the devices, and whether it means anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from octavo.profiles.scenario import Scenario, Targets
from octavo.runtime.core.trace import Record
from octavo.simulator.estimate import Estimate, tidy
from octavo.simulator.latency.model import Band

Track = Mapping[str, Any]
MOST_LATENCIES = 2000


@dataclass(frozen=True, slots=True)
class Result:
    """One scenario, or one of its baselines, as simulated. `overloaded` says why no latency of it means anything.

    `banded`: the intervals hold the error band of the step times too, not only what differs between seeds.
    `spare_missed` says which targets of `n_minus_1` are missed, and without a replica of which model.
    `latencies` are evenly spaced quantiles of the first seed's; `records` are the first seed's trace, where kept.
    """

    name: str
    scenario: Scenario
    metrics: Mapping[str, Estimate]
    costs: Mapping[str, float]
    devices: Mapping[tuple[str, str], float]
    latency_model: str
    band: Band
    overloaded: str | None = None
    notes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    latencies: tuple[float, ...] = ()
    tracks: tuple[Track, ...] = ()
    records: tuple[Record, ...] = field(default=(), repr=False)
    banded: bool = False
    spare_missed: tuple[str, ...] = ()

    def __getitem__(self, metric: str) -> float:
        return self.metrics[metric].value

    @property
    def missed(self) -> tuple[str, ...]:
        """The targets that are not met, each with what was reached."""
        if self.overloaded:
            return ()
        return (*missed(self.scenario.targets, self.metrics), *self.spare_missed)

    @property
    def fleet(self) -> str:
        """The devices in words."""
        return ", ".join(f"{_count(n)} {hardware} ({tier})" for (tier, hardware), n in self.devices.items() if n)

    def to_line(self) -> dict[str, Any]:
        """What a report shows of it. Latencies of an overloaded system are not given."""
        metrics = {name: e.to_json() for name, e in self.metrics.items() if not (self.overloaded and _timed(name))}
        return {
            "key": self.name,
            "label": self.scenario.description or self.name,
            "metrics": metrics,
            "costs": {what: tidy(usd) for what, usd in self.costs.items()},
            "latencies": [] if self.overloaded else [tidy(seconds) for seconds in self.latencies],
            "tracks": list(self.tracks),
            "devices": self.fleet,
            "overloaded": self.overloaded,
            "missed": list(self.missed),
            "notes": [*([f"OVERLOADED: {self.overloaded}"] if self.overloaded else []), *self.missed, *self.notes],
            "latency_model": self.latency_model,
            "band": {"shorter": tidy(self.band.shorter), "longer": tidy(self.band.longer)},
            "intervals": "seeds and error band" if self.banded else "seeds",
            "seeds": list(self.seeds),
        }

    def to_json(self) -> str:
        """A document of one line; the same result gives the same bytes."""
        return document([self])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{e.value:.4g}</td><td>{_interval(e)}</td></tr>"
            for name, e in self.metrics.items()
            if not (self.overloaded and _timed(name))
        )
        warning = f"<p><b>Overloaded:</b> {escape(self.overloaded)}</p>" if self.overloaded else ""
        head = "<tr><th>metric</th><th>value</th><th>95 %</th></tr>"
        return f"<h4>{escape(self.name)}</h4>{warning}<table>{head}{rows}</table>"


def document(results: Sequence[Result]) -> str:
    """The JSON that `octavo report` reads: the scenario first, its baselines after it."""
    first = results[0]
    data = {
        "kind": "simulation",
        "name": first.scenario.name,
        "description": first.scenario.description,
        "lines": [result.to_line() for result in results],
        "scenario": first.scenario.dump(),
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def missed(targets: Targets, metrics: Mapping[str, Estimate]) -> list[str]:
    """Targets that the estimates do not reach; what nobody measured is not reached."""
    found = []
    for name, target in targets.wanted.items():
        reached = metrics.get(name)
        better = reached is not None and (
            reached.value >= target if name in ("goodput", "availability", "accuracy") else reached.value <= target
        )
        if not better:
            found.append(f"target {name} {target:g} is missed: {f'{reached.value:.4g}' if reached else 'unknown'}")
    return found


def _timed(metric: str) -> bool:
    return metric.startswith(("latency", "ttft", "tpot", "barrier"))


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.4g} to {estimate.high:.4g}"


def _count(devices: float) -> str:
    return f"{devices:.0f}" if devices == round(devices) else f"{devices:.1f}"
