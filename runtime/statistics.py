"""The figures of an evaluation: intervals, paired differences, pass@k, AUC, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Z = 1.959964  # of a two-sided 95 % interval


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Candidates scored alike: the mean score, the share that is right, and how many they are."""

    said: float
    right: float
    count: int


@dataclass(frozen=True, slots=True)
class Judge:
    """How good a value model is: AUC over all candidates, and within a query's; calibration in bins."""

    auc: float | None
    auc_within: float | None
    calibration_error: float
    brier: float
    reliability: list[Bin]


def share(right: Sequence[bool] | Floats) -> Interval:
    """How often, with its interval: Wilson's for yes and no, the normal one for queries that are means of several."""
    values = np.asarray(right, float)
    count, mean = len(values), float(values.mean())
    if not np.isin(values, (0, 1)).all():
        half = Z * float(values.std(ddof=1)) / sqrt(count) if count > 1 else 0.5
        return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))
    centre = (mean + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * sqrt(mean * (1 - mean) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return Interval(mean, max(0.0, centre - half), min(1.0, centre + half))


def difference(one: Sequence[bool] | Floats, other: Sequence[bool] | Floats) -> Interval:
    """How much more often the one is right than the other on the same queries, with the paired interval."""
    gaps = np.asarray(one, float) - np.asarray(other, float)
    half = Z * float(gaps.std(ddof=1)) / sqrt(len(gaps)) if len(gaps) > 1 else 1.0
    return Interval(float(gaps.mean()), float(gaps.mean()) - half, float(gaps.mean()) + half)


def pass_at(k: int, samples: int, right: int) -> float:
    """The chance that one of k candidates is right, unbiased (Chen et al. 2021, equation 1)."""
    return 1.0 if samples - right < k else 1.0 - comb(samples - right, k) / comb(samples, k)


def auc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """The chance that a right one is scored above a wrong one; ties count half. None where one kind is missing."""
    values, truth = np.asarray(scores, float), np.asarray(right, bool)
    good, bad = int(truth.sum()), int((~truth).sum())
    if not good or not bad:
        return None
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[truth].sum() - good * (good + 1) / 2) / (good * bad))


def reliability(scores: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Candidates in bins of equal width by score; empty bins are left out."""
    values, truth = np.asarray(scores, float), np.asarray(right, float)
    place = np.minimum((values * bins).astype(int), bins - 1)
    chosen = [place == index for index in range(bins)]
    return [Bin(float(values[c].mean()), float(truth[c].mean()), int(c.sum())) for c in chosen if c.any()]


def calibration_error(found: Sequence[Bin]) -> float:
    """Mean distance between what was said and what was right, weighted by candidates (ECE)."""
    total = sum(each.count for each in found)
    return sum(abs(each.said - each.right) * each.count for each in found) / total if total else 0.0


def judge(queries: Sequence[Sequence[tuple[float, bool]]]) -> Judge | None:
    """Of scores in [0, 1] with their verdicts, query by query; None where nothing was scored."""
    scored = [each for found in queries for each in found]
    if not scored:
        return None
    values, right = [value for value, _ in scored], [bool(verdict) for _, verdict in scored]
    within = [auc([value for value, _ in found], [verdict for _, verdict in found]) for found in queries]
    known = [each for each in within if each is not None]
    bins = reliability(values, right)
    brier = float(np.mean((np.array(values) - np.array(right, float)) ** 2))
    return Judge(auc(values, right), float(np.mean(known)) if known else None, calibration_error(bins), brier, bins)
