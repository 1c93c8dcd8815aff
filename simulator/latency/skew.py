"""What rows of unequal context take beyond equal ones: a share of the way to rows all as long as the longest.

LLMServingSim 2.0 measures it: t = t(mean) + alpha (t(longest) - t(mean)), alpha by bucket of prefill tokens, rows, how
many rows are long, the longest context, and what the prefill attends to (skew_fit.csv, axes in meta.yaml).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log1p
from typing import Protocol

from octavo.simulator.lane import Lane

Bucket = tuple[str, str, str, str]
Gap = Callable[[], float]
"""How much longer attention takes if all rows are as long as the longest, relative to rows of the mean."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Bins by their upper edges, the last without one, and the label of each."""

    edges: tuple[float, ...]
    labels: tuple[str, ...]

    def label(self, value: float) -> str:
        return self.labels[min(bisect_left(self.edges, value), len(self.labels) - 1)]


class Unequal(Protocol):
    """How far a step of unequal rows is on the way from equal ones to all of the longest."""

    def alpha(self, chunk: float, past: float, rows: int, spread: Spread, gap: Gap) -> float:
        """Of `rows` that decode contexts of this spread, beside a prefill of `chunk` tokens after `past`."""


@dataclass(frozen=True, slots=True)
class Skew:
    """Alpha by what the batch is: `usual` where no bucket of its kind was measured, and nothing where no skew was."""

    usual: float = 0.0
    axes: Mapping[str, Axis] = field(default_factory=dict)
    alphas: Mapping[int, Mapping[Bucket, float]] = field(default_factory=dict)

    def alpha(self, chunk: float, past: float, rows: int, spread: Spread, gap: Gap) -> float:
        """Whatever the gap is.

        Prefills were measured at a few sizes: the nearest on a scale of ratios counts.
        """
        if rows < 2 or spread.above <= 0:
            return 0.0
        if not self.alphas:
            return max(self.usual, 0.0)
        size = min(self.alphas, key=lambda measured: abs(log1p(measured) - log1p(chunk)))
        bucket = (
            self.axes["n"].label(rows),
            self.axes["skew_rate"].label(spread.share),
            self.axes["kv_big"].label(spread.longest),
            self.axes["kp"].label(past),
        )
        return max(self.alphas[size].get(bucket, self.usual), 0.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """The shortest, mean and longest context of a batch when its rows came together."""

    shortest: float = 0.0
    mean: float = 0.0
    longest: float = 0.0

    @property
    def above(self) -> float:
        return self.longest - self.mean

    @property
    def share(self) -> float:
        """Of rows that are long, if some were as the shortest and the others as the longest."""
        return (self.mean - self.shortest) / (self.longest - self.shortest)


class Batch:
    """The rows that decode on a lane. All advance together, so their spread holds until one comes or goes."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._seen: tuple[int, int, int] | None = None
        self._spread = Spread()

    def spread(self) -> Spread:
        scheduler = self._lane.scheduler
        now = id(scheduler), scheduler.clock, len(scheduler.decoding)
        if now != self._seen:
            lengths = [job.length_at(scheduler.clock) for job in scheduler.decoding]
            self._spread = Spread(min(lengths), sum(lengths) / len(lengths), max(lengths)) if lengths else Spread()
            self._seen = now
        return self._spread
