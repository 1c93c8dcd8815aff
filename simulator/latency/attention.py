"""Seconds of one layer's attention by four lengths, interpolated between those that were measured."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.simulator.latency.table import Curve

Tree = dict[float, Any]


@dataclass(frozen=True, slots=True)
class Prefill:
    """All that a step prefills: its tokens, and how many pairs of tokens attend to each other."""

    tokens: int = 0
    pairs: float = 0.0

    @property
    def key(self) -> float:
        """How many tokens one attends to in the mean."""
        return self.pairs / self.tokens if self.tokens else 0.0

    @property
    def past(self) -> float:
        """What one chunk of as many tokens would have before it; less than none where there are several prompts."""
        return self.key - self.tokens / 2


class Attention:
    """By prefill tokens, what these attend to, decoding rows and mean KV of each.

    Linear along each length in turn; every measured value of one has its own grid of the next, so that grids differ.
    The second is the mean over tokens (`keyed`), or what was computed before one chunk.
    """

    def __init__(self, points: Mapping[tuple[float, float, int, int], float], *, keyed: bool = False) -> None:
        self._keyed = keyed
        self._tree: Tree = {}
        for (chunk, past, rows, context), seconds in sorted(points.items()):
            under = self._tree.setdefault(chunk, {}).setdefault(past, {}).setdefault(rows, {})
            under[context] = seconds

    def seconds(self, prefill: Prefill, rows: float, context: float) -> float:
        """Of a step that prefills and decodes `rows` of `context` each."""
        if self._keyed:
            return interpolated(self._tree, (prefill.tokens, prefill.key, rows, context))
        found = interpolated(self._tree, (prefill.tokens, max(prefill.past, 0.0), rows, context))
        if prefill.past >= 0:
            return found
        # Several prompts are less work than the one chunk that was measured.
        alone = interpolated(self._tree, (prefill.tokens, 0.0, 0, 0))
        return found - alone * (1 - prefill.key / (prefill.tokens / 2))

    def over_context(self, rows: float) -> Curve:
        """Of decode steps, over the context of all rows together."""
        contexts = sorted({context for under in self._tree[0][0].values() for context in under})
        return Curve.through([(rows * value, self.seconds(Prefill(), rows, value)) for value in contexts])


def interpolated(tree: Tree, at: tuple[float, ...]) -> float:
    """Between the neighbours of each length; beyond the last, on as it was."""
    x, rest = at[0], at[1:]
    axis = list(tree)
    if len(axis) == 1 or x <= axis[0]:
        return _under(tree[axis[0]], rest)
    upper = min(bisect_right(axis, x), len(axis) - 1)
    low, high = axis[upper - 1], axis[upper]
    share = (x - low) / (high - low)
    if not share:
        return _under(tree[low], rest)
    return (1 - share) * _under(tree[low], rest) + share * _under(tree[high], rest)


def _under(branch: Any, at: tuple[float, ...]) -> float:
    return interpolated(branch, at) if at else float(branch)
