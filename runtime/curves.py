"""What more candidates buy: accuracy, tokens and seconds against their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from octavo.runtime.contest import Candidates
from octavo.runtime.sampled import Sampled
from octavo.runtime.statistics import Floats, Interval, share

MOST = 16


@dataclass(frozen=True, slots=True)
class Point:
    """What `n` candidates reach by a ranking, and take on the mean; `seconds` of a query alone, where measured."""

    n: int
    accuracy: Interval
    tokens: float
    seconds: float | None = None


def curve(candidates: Candidates, *, by_value: bool, seconds: dict[int, float] | None = None) -> list[Point]:
    """For each n up to 16, the best-ranked of n candidates of each task; `by_value`, or by mean log-probability.

    Each figure is the mean over all subsets of n candidates, so it doesn't depend on which were sampled first.
    """
    most = min(MOST, *map(len, candidates.values()))
    tokens = float(np.mean([each.new_tokens for found in candidates.values() for each in found]))
    ranked = [ranking(found, by_value=by_value) for found in candidates.values()]
    measured = seconds or {}
    return [
        Point(n, share(np.array([picked(n, right) for right in ranked])), n * tokens, measured.get(n))
        for n in range(1, most + 1)
    ]


def ranking(found: Sequence[Sampled], *, by_value: bool) -> Floats:
    """Whether each candidate is right, best first; those ranked alike share what they have."""
    keys = np.array([(each.value or 0.0) if by_value else each.mean_logprob for each in found])
    right = np.array([each.correct for each in found], float)
    alike = {key: float(right[keys == key].mean()) for key in set(keys.tolist())}
    return np.array([alike[key] for key in sorted(keys.tolist(), reverse=True)])


def picked(n: int, ranked: Floats) -> float:
    """The chance that the best-ranked of n candidates, drawn at random without replacement, is right."""
    total = len(ranked)
    chances = [comb(total - 1 - place, n - 1) / comb(total, n) for place in range(total - n + 1)]
    return float(np.dot(chances, ranked[: len(chances)]))
