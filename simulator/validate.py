"""Measured against simulated: the error of each metric, with an interval, and gates that it must pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octavo.profiles.errors import ConfigError, GateError
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, RunRecord
from octavo.simulator.estimate import Estimate, Floats, tidy

RESAMPLES = 400
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of both; `error` is simulated over measured, less one, with its 95 % bootstrap interval."""

    metric: str
    unit: str
    measured: float
    simulated: float
    error: Estimate

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "unit": self.unit,
            "measured": tidy(self.measured),
            "simulated": {"value": tidy(self.simulated)},
            "error": tidy(self.error.value),
            "error_interval": self.error.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Validation:
    """A load that was served and the same load simulated."""

    name: str
    metrics: tuple[Compared, ...]
    measured: tuple[float, ...]
    simulated: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, metric: str) -> Compared:
        return next(compared for compared in self.metrics if compared.metric == metric)

    def gate(self, most: Mapping[str, float]) -> None:
        """Raises GateError naming each metric whose error is larger than allowed (0.03 is three per cent)."""
        known = {compared.metric for compared in self.metrics}
        if unknown := sorted(set(most) - known):
            raise ConfigError(f"gate: no metric {unknown[0]!r}; there are {', '.join(sorted(known))}")
        failed = [
            f"{metric}: error {self[metric].error.value:+.1%}, allowed {allowed:.1%}"
            for metric, allowed in most.items()
            if abs(self[metric].error.value) > allowed
        ]
        if failed:
            raise GateError(f"{self.name}: " + "; ".join(failed))

    def to_json(self) -> str:
        """The document that `octavo report` reads."""
        data = {
            "kind": "validation",
            "name": self.name,
            "metrics": [compared.to_json() for compared in self.metrics],
            "measured": [tidy(seconds) for seconds in self.measured],
            "simulated": [tidy(seconds) for seconds in self.simulated],
            "notes": list(self.notes),
        }
        return json.dumps(data, indent=1, allow_nan=False) + "\n"


def validate(
    measured: Iterable[Record],
    simulated: Iterable[Record],
    name: str = "replay",
    *,
    others: Sequence[Iterable[Record]] = (),
) -> Validation:
    """Compare two traces of the same queries. Raises ConfigError when they are not of the same queries.

    With `others`, simulations of other seeds, the mean of each metric counts, and intervals hold what differs between
    them.
    """
    real, models = _Trace(measured), [_Trace(trace) for trace in (simulated, *others)]
    shared = sorted(set(real.queries).intersection(*(model.queries for model in models)))
    if not shared:
        raise ConfigError(f"{name}: the traces have no answered query in common")
    random = np.random.default_rng(0)
    both = [[trace.queries[q] for q in shared] for trace in (real, *models)]
    metrics = [
        *_paired("ttft", *([query.ttft for query in queries] for queries in both), random=random),
        *_paired("latency", *([query.latency for query in queries] for queries in both), random=random),
        *_paired("tpot", *_common(real.tpot, *(model.tpot for model in models)), random=random),
        _throughput(real, models),
    ]
    latencies = [tuple(sorted(query.latency or 0.0 for query in queries)) for queries in both[:2]]
    return Validation(name, tuple(metrics), latencies[0], latencies[1], tuple(_notes(real, models[0], shared)))


class _Trace:
    """The answered queries and the time per output token of each expert's inference."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.all = 0
        self.queries: dict[int, QueryRecord] = {}
        self.tpot: dict[tuple[int, str, int], float] = {}
        self.chosen: dict[int, str | None] = {}
        self.pace = self.slowest = 1.0
        for record in records:
            if isinstance(record, RunRecord):
                self.pace = float(record.machine.get("pace", 1.0))
                self.slowest = float(record.machine.get("pace_p95", 1.0))
            elif isinstance(record, QueryRecord):
                self.all += 1
                if record.outcome == "answered" and record.ended is not None:
                    self.queries[record.query] = record
                    self.chosen[record.query] = record.chosen
            elif isinstance(record, InferenceRecord):
                self._token_time(record)

    def _token_time(self, record: InferenceRecord) -> None:
        if record.judge or record.end != "finished" or record.new_tokens < 2:
            return
        if record.first_token is not None and record.ended is not None:
            key = record.query, record.model, record.sample
            self.tpot[key] = (record.ended - record.first_token) / (record.new_tokens - 1)


def _common(*traces: dict[tuple[int, str, int], float]) -> list[list[float | None]]:
    keys = sorted(set(traces[0]).intersection(*traces[1:]))
    return [[trace[key] for key in keys] for trace in traces]


def _paired(
    name: str, measured: Sequence[float | None], *simulated: Sequence[float | None], random: np.random.Generator
) -> list[Compared]:
    """Mean and percentiles; each resample draws a simulation, and the same queries of it and of what was measured."""
    rows = [row for row in zip(measured, *simulated, strict=True) if None not in row]
    if not rows:
        return []
    real, *models = np.array(rows, float).T
    picks = random.integers(len(rows), size=(RESAMPLES, len(rows)))
    which = random.integers(len(models), size=RESAMPLES) if len(models) > 1 else np.zeros(RESAMPLES, int)
    drawn = real[picks], np.array(models)[which[:, None], picks]
    found = [_compared(f"{name}_mean", real.mean(), np.mean(models), *(each.mean(1) for each in drawn))]
    for p in PERCENTILES:
        simply = np.percentile(real, p), np.percentile(models, p, axis=1).mean()
        found.append(_compared(f"{name}_p{p}", *simply, *(np.percentile(each, p, axis=1) for each in drawn)))
    return found


def _compared(name: str, real: Any, model: Any, reals: Floats, models: Floats) -> Compared:
    errors = models / np.maximum(reals, 1e-12) - 1
    low, high = np.percentile(errors, [2.5, 97.5])
    error = Estimate(float(model) / max(float(real), 1e-12) - 1, float(low), float(high))
    return Compared(name, "s", float(real), float(model), error)


def _throughput(real: _Trace, models: Sequence[_Trace]) -> Compared:
    """Answers per second from the first arrival to the last answer."""
    rates = []
    for trace in (real, *models):
        start = min(query.arrival for query in trace.queries.values())
        end = max(query.ended or 0.0 for query in trace.queries.values())
        rates.append(len(trace.queries) / max(end - start, 1e-12))
    simulated = float(np.mean(rates[1:]))
    return Compared("throughput", "queries/s", rates[0], simulated, Estimate(simulated / rates[0] - 1))


def _notes(real: _Trace, model: _Trace, shared: Sequence[int]) -> list[str]:
    notes = []
    if real.all != len(shared) or model.all != len(shared):
        notes.append(f"of {real.all} measured and {model.all} simulated queries, {len(shared)} were answered in both")
    if abs(model.pace - 1) > 0.1 or model.slowest > 3:
        notes.append(
            f"while the load was served, decode steps took {model.pace:.2f} times what was measured before it, one in "
            f"twenty over {model.slowest:.1f} times: the machine was not alone; measure and serve on a quiet one"
        )
    other = sum(real.chosen[q] != model.chosen[q] for q in shared)
    if other:
        notes.append(f"{other} of {len(shared)} queries chose another candidate, since others arrived first")
    return notes
