"""Draws the next token of every row at once, from all logits or from the k largest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.runtime.sampling import Sampling

Floats = NDArray[Any]
Tokens = NDArray[np.int64]
COLDEST = np.float32(1e-30)  # of all that is not greedy: its inverse is still a number
BLOCK = 256  # columns summed at once where the vocabulary is large

# What sampling needs to know of a row. `key` seeds its random numbers, `drawn` counts the tokens drawn so far.
SETTINGS = np.dtype(
    [
        ("key", np.uint64),
        ("drawn", np.uint64),
        ("temperature", np.float32),
        ("top_k", np.int32),
        ("top_p", np.float32),
        ("min_p", np.float32),
    ]
)


def settings_of(sampling: Sampling, key: int, drawn: int, columns: int) -> tuple[float, ...]:
    """The SETTINGS of a row; `columns` is how many logits it sees."""
    top_k = min(sampling.top_k or columns, columns)
    return (key, drawn, sampling.temperature, top_k, sampling.top_p, sampling.min_p)


class Sampler:
    """Knows which of the steps below a batch needs; tell it the batch's SETTINGS whenever they change."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.prepare(np.empty(0, SETTINGS))

    def prepare(self, rows: NDArray[np.void]) -> None:
        """Look at the SETTINGS of the rows that the next draws are for."""
        temperature = rows["temperature"]
        self._greedy = np.flatnonzero(temperature == 0)
        self._all_greedy = len(self._greedy) == len(rows)
        self._tempered = bool(((temperature != 1) & (temperature != 0)).any())
        self._factor = (1 / np.maximum(np.where(temperature == 0, 1, temperature), COLDEST))[:, None]
        self._top_k = rows["top_k"].copy()
        self._top_p = rows["top_p"][:, None].copy()
        self._min_p = rows["min_p"][:, None].copy()
        self._narrow_k = bool((self._top_k < self.columns).any())
        self._narrow_p = bool((self._top_p < 1).any())
        self._narrow_min = bool((self._min_p > 0).any())

    def draw(self, values: Floats, rows: NDArray[np.void]) -> tuple[NDArray[np.intp], Floats]:
        """A column for each row of `values` [rows, columns] float32, and each row's logsumexp; counts the draws.

        `rows` are the SETTINGS last prepared. The logsumexp of a row with NaN or infinite logits is not finite, and
        its column means nothing.
        """
        peak = values.max(axis=1, keepdims=True)
        shifted = values - peak
        weights = np.exp(shifted)
        total = peak[:, 0] + np.log(weights.sum(axis=1))
        if self._all_greedy:
            drawn = values.argmax(axis=1)
        else:
            if self._tempered:
                weights = np.exp(shifted * self._factor)
            if self._narrow_k or self._narrow_p or self._narrow_min:
                weights *= weights >= self._floor(weights)
            drawn = search(weights, uniforms(rows["key"], rows["drawn"]))
            drawn[self._greedy] = values[self._greedy].argmax(axis=1)
        rows["drawn"] += np.uint64(1)
        return drawn, total

    def _floor(self, weights: Floats) -> Floats:
        """The smallest weight that each row keeps, [rows, 1]; the largest weight of a row is 1."""
        floor = self._min_p.copy()
        if not (self._narrow_k or self._narrow_p):
            return floor
        width = int(self._top_k.max())
        best = weights if width == self.columns else np.partition(weights, self.columns - width, axis=1)[:, -width:]
        best = np.sort(best, axis=1)[:, ::-1]
        every = np.arange(len(weights))
        kept = np.arange(width) < self._top_k[:, None]
        if self._narrow_p:
            sums = np.cumsum(best * kept, axis=1)
            kept[:, 1:] &= sums[:, :-1] < self._top_p * sums[:, -1:]
        return np.asarray(np.maximum(floor, best[every, kept.sum(axis=1) - 1][:, None]))


def search(weights: Floats, points: NDArray[np.float64]) -> NDArray[np.intp]:
    """The first column at which the running sum of each row's weights passes `points` (in [0, 1)) of its total."""
    rows, columns = weights.shape
    if columns <= 2 * BLOCK:
        sums = np.cumsum(weights, axis=1, dtype=np.float64)
        return np.asarray((sums > (points * sums[:, -1])[:, None]).argmax(axis=1))
    sums = np.cumsum(np.add.reduceat(weights, range(0, columns, BLOCK), axis=1), axis=1, dtype=np.float64)
    targets = points * sums[:, -1]
    block = (sums > targets[:, None]).argmax(axis=1)
    before = np.where(block > 0, sums[np.arange(rows), block - 1], 0.0)
    drawn = np.empty(rows, np.intp)
    for row, start in enumerate((block * BLOCK).tolist()):
        inside = np.cumsum(weights[row, start : start + BLOCK], dtype=np.float64)
        passed = inside > targets[row] - before[row]
        drawn[row] = start + (
            passed.argmax() if passed[-1] else np.flatnonzero(weights[row, start : start + BLOCK])[-1]
        )
    return drawn


def uniforms(keys: NDArray[np.uint64], counts: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Random numbers in [0, 1), number `counts` of each key's stream (SplitMix64, Steele et al. 2014)."""
    mixed = keys + (counts + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53)


def logsumexp(values: Floats) -> Floats:
    """Of each row of [rows, columns]; not finite where a logit is NaN or infinite."""
    peak = values.max(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(peak + np.log(np.exp(values - peak[:, None]).sum(axis=1)))


def penalise(values: Floats, sampling: Sampling, prompt: Tokens, written: Tokens, ids: Tokens | None = None) -> Floats:
    """A row's logits [columns] with its penalties, as a new array; `ids` are the columns' tokens where not all are."""
    values = values.copy()
    if sampling.repetition_penalty != 1:
        seen = _columns(np.concatenate([prompt, written]), ids)
        penalty = sampling.repetition_penalty
        values[seen] = np.where(values[seen] > 0, values[seen] / penalty, values[seen] * penalty)
    if sampling.presence_penalty:
        seen = _columns(written, ids)
        values[seen] = values[seen] - sampling.presence_penalty
    return values


def _columns(tokens: Tokens, ids: Tokens | None) -> NDArray[Any]:
    return tokens if ids is None else np.flatnonzero(np.isin(ids, tokens))
