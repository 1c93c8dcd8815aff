"""When queries come: gaps drawn from the workload, times read from a trace, or clients that wait for their answer."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from math import gamma, inf
from pathlib import Path

import numpy as np
import numpy.typing as npt

from octavo.profiles.errors import ConfigError
from octavo.profiles.workload import (
    Arrivals,
    AtOnce,
    ClosedLoop,
    Diurnal,
    Gamma,
    Poisson,
    Recorded,
    TraceFile,
    Weibull,
    Workload,
)
from octavo.runtime.core.query import Query
from octavo.simulator.world import Ask

Floats = npt.NDArray[np.float64]
DEFAULT_QUERIES = 1000
HASH_TOKENS = 512
"""Tokens of one block that a Mooncake trace's hash_ids name."""


def arrival_times(workload: Workload, random: np.random.Generator) -> Floats:
    """Seconds after the start, in order: `queries` of them, or as many as come within `duration`."""
    arrivals, count, duration = workload.arrivals, workload.queries, workload.duration
    match arrivals:
        case AtOnce() | ClosedLoop():
            return np.zeros(count or DEFAULT_QUERIES)
        case Recorded(times=times):
            found = np.array(times)
            found = found if duration is None else found[found < duration]
            return found[:count]
        case TraceFile():
            raise ConfigError("workload.arrivals: a trace is read with its lengths")
        case Diurnal():
            return _thinned(arrivals, count, duration, random)
    return _renewal(arrivals, count, duration, random)


def _renewal(arrivals: Arrivals, count: int | None, duration: float | None, random: np.random.Generator) -> Floats:
    if duration is None:
        return np.cumsum(_gaps(arrivals, count or DEFAULT_QUERIES, random))
    times: Floats = np.zeros(0)
    while not len(times) or times[-1] < duration:
        more = max(64, int(getattr(arrivals, "rate", 1.0) * duration * 1.1))
        start = times[-1] if len(times) else 0.0
        times = np.concatenate([times, start + np.cumsum(_gaps(arrivals, more, random))])
    return times[times < duration]


def _gaps(arrivals: Arrivals, count: int, random: np.random.Generator) -> Floats:
    match arrivals:
        case Poisson(rate=rate):
            return random.exponential(1 / rate, count)
        case Gamma(rate=rate, cv=cv):
            return random.gamma(1 / cv**2, cv**2 / rate, count)
        case Weibull(rate=rate, cv=cv):
            shape = weibull_shape(cv)
            return random.weibull(shape, count) / (rate * gamma(1 + 1 / shape))
    raise ConfigError(f"workload.arrivals: no gaps to draw for kind {arrivals.kind}")


def weibull_shape(cv: float) -> float:
    """The shape whose gaps have this coefficient of variation."""
    from scipy.optimize import brentq  # slow to import, seldom used

    def excess(shape: float) -> float:
        return gamma(1 + 2 / shape) / gamma(1 + 1 / shape) ** 2 - 1 - cv**2

    return float(brentq(excess, 0.05, 100.0))


def _thinned(diurnal: Diurnal, count: int | None, duration: float | None, random: np.random.Generator) -> Floats:
    """Poisson with a changing rate, by thinning one at the highest rate (Lewis and Shedler 1979)."""
    highest = diurnal.rate * diurnal.peak
    times: list[float] = []
    now, end, most = 0.0, duration or inf, count or (DEFAULT_QUERIES if duration is None else 1 << 62)
    while len(times) < most:
        now += random.exponential(1 / highest)
        if now >= end:
            break
        if random.random() * highest < diurnal.rate_at(now):
            times.append(now)
    return np.array(times)


@dataclass(frozen=True, slots=True)
class Recording:
    """A trace file's arrivals and lengths; prefixes where it names them."""

    times: Floats
    prompts: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    prefixes: list[tuple[int, ...]] | None = None


def read_recording(trace: TraceFile, count: int | None = None) -> Recording:
    """Raises ConfigError naming the file and the line that cannot be read."""
    readers = {"mooncake": _mooncake, "azure": _azure, "burstgpt": _burstgpt}
    rows = []
    try:
        with Path(trace.file).open(encoding="utf-8-sig", newline="") as lines:
            for number, row in enumerate(readers[trace.format](lines), 1):
                if not (row[0] >= 0 and row[1] >= 0 and row[2] >= 0):
                    raise ConfigError(f"{trace.file}: record {number}: times and lengths must not be negative")
                rows.append(row)
    except OSError as error:
        raise ConfigError(f"{trace.file}: {error.strerror}; workload.arrivals.file names a trace") from None
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{trace.file}: record {len(rows) + 1}: not {trace.format} ({error!r})") from None
    if not rows:
        raise ConfigError(f"{trace.file}: no records")
    rows = sorted(rows, key=lambda row: row[0])[:count]
    start = rows[0][0]
    return Recording(
        np.array([(row[0] - start) / trace.speed for row in rows]),
        np.array([max(1, row[1]) for row in rows]),
        np.array([max(1, row[2]) for row in rows]),
        [row[3] for row in rows] if trace.format == "mooncake" else None,
    )


Row = tuple[float, int, int, tuple[int, ...]]


def _mooncake(lines: Iterable[str]) -> Iterator[Row]:
    for line in lines:
        if line.strip():
            row = json.loads(line)
            prefix = tuple(row.get("hash_ids", ()))
            yield row["timestamp"] / 1000, row["input_length"], row["output_length"], prefix


def _azure(lines: Iterable[str]) -> Iterator[Row]:
    for row in csv.DictReader(lines):
        at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
        yield at, int(row["ContextTokens"]), int(row["GeneratedTokens"]), ()


def _burstgpt(lines: Iterable[str]) -> Iterator[Row]:
    for row in csv.DictReader(lines):
        if int(row["Response tokens"]):
            yield float(row["Timestamp"]), int(row["Request tokens"]), int(row["Response tokens"]), ()


@dataclass(slots=True)
class Open:
    """Queries that come whether or not earlier ones have been answered."""

    asks: list[Ask]

    def first(self) -> Iterable[Ask]:
        return self.asks

    def after(self, query: Query, now: float) -> Ask | None:
        return None


@dataclass(slots=True)
class Loop:
    """Clients that each wait for their answer, think, and ask again, until the queries are used up."""

    queries: list[Query]
    clients: int
    think: Floats
    _asked: int = field(default=0)

    def first(self) -> Iterable[Ask]:
        first = self.queries[: self.clients]
        self._asked = len(first)
        return [Ask(0.0, query) for query in first]

    def after(self, query: Query, now: float) -> Ask | None:
        if self._asked == len(self.queries):
            return None
        self._asked += 1
        return Ask(now + float(self.think[self._asked - 1]), self.queries[self._asked - 1])
