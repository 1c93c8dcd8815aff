"""Step times from a measured profile: decode steps interpolated over rows and context, prefill by its own physics.

The grid of a profile may be irregular: each measured batch size has a line over its contexts; between two batch sizes
lines are mixed. What lies outside goes on with the last slope.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import mean, median

import numpy as np

from octavo.profiles.latency import LatencyProfile, StepTime
from octavo.runtime.core.scheduler import Chunk
from octavo.simulator.latency.model import Band, Line

SHORTEST = 1e-7
"""Seconds: what a step takes at least, whatever a fit says."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A non-decreasing piecewise linear function through points, going on with its last slope."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]

    @staticmethod
    def through(points: Sequence[tuple[float, float]]) -> Curve:
        """Of points at equal x the median counts; where y dips, which is measured noise, the mean of its neighbours."""
        at: dict[float, list[float]] = defaultdict(list)
        for x, y in points:
            at[x].append(y)
        xs = sorted(at)
        return Curve(tuple(xs), tuple(_rising([median(at[x]) for x in xs])))

    def line(self, x: float) -> Line:
        """Value and slope at x, and where the next piece begins."""
        if len(self.xs) == 1:
            return Line(self.ys[0], 0.0)
        piece = min(max(bisect_right(self.xs, x) - 1, 0), len(self.xs) - 2)
        x0, x1, y0, y1 = self.xs[piece], self.xs[piece + 1], self.ys[piece], self.ys[piece + 1]
        slope = (y1 - y0) / (x1 - x0)
        until = x1 if piece < len(self.xs) - 2 else inf
        return Line(max(y0 + slope * (x - x0), SHORTEST), slope, until)


def _rising(ys: Sequence[float]) -> list[float]:
    """The nearest non-decreasing values, in least squares (pool adjacent violators; Ayer et al., 1955)."""
    pools: list[list[float]] = []
    for y in ys:
        pools.append([y])
        while len(pools) > 1 and mean(pools[-2]) >= mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    return [mean(pool) for pool in pools for _ in pool]


@dataclass
class Table:
    """A model as one machine ran it; its step overhead is in every step."""

    profile: LatencyProfile
    overhead: float = 0.0
    _lines: dict[int, Curve] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fixed = self.profile.step_overhead + self.overhead
        self._rows, self._curves = _decode_curves(self.profile.steps)
        self._prefill = _prefill_coefficients(self.profile.steps)
        self._factor = _prefill_factor(self.profile.steps, self._prefill)
        self._saved = _saved_by_mixing(self)

    @property
    def label(self) -> str:
        return f"measured {self.profile.name} on {self.profile.hardware}"

    @property
    def band(self) -> Band:
        """The spread of the measured steps, and never less than two per cent."""
        spread = max(0.02, 2 * median(step.spread / step.seconds for step in self.profile.steps))
        return Band(spread, spread)

    def decode(self, rows: int, context: int) -> Line:
        curve = self._lines.get(rows) or self._lines.setdefault(rows, self._curve(rows))
        line = curve.line(context)
        return Line(line.seconds + self.fixed, line.slope, line.until)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        prefill = self.prefill(sum(c.tokens for c in chunks), len(chunks), *_attended(chunks))
        if not rows:
            return prefill + self.fixed
        decode = self.decode(rows, context).seconds
        return max(decode + prefill - self._saved, decode, prefill + self.fixed)

    def prefill(self, tokens: int, rows: int, pairs: float, past: float) -> float:
        """Seconds of a step that only prefills, without overhead."""
        physics = float(np.dot(_features(tokens, rows, pairs, past), self._prefill))
        return max(physics * self._factor.line(tokens).seconds, SHORTEST)

    def _curve(self, rows: int) -> Curve:
        """The line over context of a batch size that need not have been measured."""
        if not self._curves:
            raise ValueError(f"{self.profile.name}: no decode step was measured")
        upper = min(max(bisect_right(self._rows, rows), 1), len(self._rows) - 1)
        if len(self._rows) == 1 or rows in self._rows:
            return self._curves[self._rows.index(rows) if rows in self._rows else 0]
        low, high = self._rows[upper - 1], self._rows[upper]
        share = (rows - low) / (high - low)
        a, b = self._curves[upper - 1], self._curves[upper]
        contexts = sorted({x * rows / low for x in a.xs} | {x * rows / high for x in b.xs})
        mixed = [
            (x, max((1 - share) * a.line(x * low / rows).seconds + share * b.line(x * high / rows).seconds, SHORTEST))
            for x in contexts
        ]
        return Curve.through(mixed)


def _decode_curves(steps: Sequence[StepTime]) -> tuple[list[int], list[Curve]]:
    """Batch sizes and their lines over total context; a larger batch is never faster at the same context per row."""
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for step in steps:
        if step.decodes and not step.prefill_tokens:
            points[step.decodes].append((float(step.context), step.seconds))
    rows = sorted(points)
    return rows, [Curve.through(points[count]) for count in rows]


def _features(tokens: float, rows: float, pairs: float, past: float) -> tuple[float, float, float, float, float]:
    return 1.0, tokens, rows, pairs, past


def _attended(chunks: Sequence[Chunk]) -> tuple[float, float]:
    """Pairs of new tokens and tokens that they attend to, and KV tokens that were there before."""
    pairs = sum(c.tokens * c.start + c.tokens * (c.tokens + 1) / 2 for c in chunks)
    return pairs, float(sum(c.start for c in chunks))


def _measured(step: StepTime) -> tuple[float, float, float, float, float]:
    """Features of a measured prefill, its tokens and past shared evenly by its rows."""
    rows = max(step.prefill_rows, 1)
    each, past = step.prefill_tokens / rows, step.past / rows
    pairs = rows * (each * past + each * (each + 1) / 2)
    return _features(step.prefill_tokens, rows, pairs, step.past)


def _prefill_coefficients(steps: Sequence[StepTime]) -> np.ndarray:
    """Seconds per step, token, row, attended pair and past token, none negative, least squares of relative error."""
    from scipy.optimize import nnls  # slow to import, seldom used

    found = [step for step in steps if step.prefill_tokens and not step.decodes]
    if not found:
        return np.zeros(5)
    matrix = np.array([_measured(step) for step in found]) / np.array([[step.seconds] for step in found])
    scale = np.maximum(matrix.max(axis=0), 1e-30)
    return np.asarray(nnls(matrix / scale, np.ones(len(found)))[0] / scale)


def _prefill_factor(steps: Sequence[StepTime], coefficients: np.ndarray) -> Curve:
    """Measured over fitted, by prefill tokens: what the physics does not see, such as a kernel's favourite sizes."""
    found = [step for step in steps if step.prefill_tokens and not step.decodes]
    ratios: dict[int, list[float]] = defaultdict(list)
    for step in found:
        ratios[step.prefill_tokens].append(step.seconds / max(float(np.dot(_measured(step), coefficients)), SHORTEST))
    xs = sorted(ratios)
    if not xs:
        return Curve((1.0,), (1.0,))
    ys = [median(ratios[x]) for x in xs]
    return Curve((0.0, *map(float, xs), 2.0 * xs[-1]), (ys[0], *ys, ys[-1]))


def _saved_by_mixing(table: Table) -> float:
    """Seconds by which a measured mixed step is shorter than its decode and its prefill apart."""
    saved = []
    for step in table.profile.steps:
        if step.decodes and step.prefill_tokens:
            _, _, _, pairs, past = _measured(step)
            apart = table.decode(step.decodes, step.context).seconds - table.fixed
            apart += table.prefill(step.prefill_tokens, max(step.prefill_rows, 1), pairs, past)
            saved.append(apart - step.seconds)
    return max(0.0, median(saved)) if saved else 0.0
