"""The share that unequal rows take of the way to the longest, by how far that way is: LLMServingSim's newer skew fit.

alpha by prefill tokens, by how much longer a step of rows all as long as the longest would take (the gap), and by the
nearest measured number of rows on a scale of ratios (skew_fit.csv; axes, defaults and bounds in meta.yaml).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from octavo.simulator.latency.skew import Axis, Gap, Spread

Anchors = tuple[tuple[int, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Lever:
    """Alphas at measured numbers of rows, by label of prefill and of gap; `usual` elsewhere and beyond `counts`."""

    usual: float
    counts: tuple[int, int]
    prefill: Axis
    gap: Axis
    alphas: Mapping[tuple[str, str], Anchors]

    def alpha(self, chunk: float, past: float, rows: int, spread: Spread, gap: Gap) -> float:
        if rows < 2 or spread.above <= 0:
            return 0.0
        if not self.counts[0] <= rows <= self.counts[1]:
            return max(self.usual, 0.0)
        found = self.alphas.get((self.prefill.label(chunk), self.gap.label(gap())))
        if found is None:
            return max(self.usual, 0.0)
        anchors, alphas = found
        borders = [low * high for low, high in pairwise(anchors)]
        return max(alphas[bisect_left(borders, rows * rows)], 0.0)
