"""Outcomes: which candidates are right, and what the value model, the vote and the log-probability make of them.

Stated outcomes are drawn from probabilities, recorded ones (recorded.py) from what `octavo eval` saw. Both fill the
same tables, one row per query and one column per candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtri

from octavo.profiles.scenario import Stated
from octavo.runtime.core.query import Candidate, Inference, Score
from octavo.simulator.streams import Streams
from octavo.simulator.truth import left_to_write

Floats = npt.NDArray[np.float64]
VERIFIER = "verifier"
WRONG_LABELS = 0.5
"""Wrong answers agree with the commonest wrong one with this probability, with the next with its square, ..."""
LOGPROB_SHARE = 0.5
"""Log-probability tells right from wrong by this share of the value model's AUC above one half."""


@dataclass(slots=True)
class Outcomes:
    """Tables by query and candidate: right or not, value in [0, 1], mean log-probability, which label the answer has.

    `label` says which of `labels`: there are few, and millions of candidates.
    """

    right: npt.NDArray[np.bool_]
    value: Floats
    logprob: Floats
    label: npt.NDArray[np.int32]
    labels: Sequence[str | None]
    known: bool = True


def unknown(candidates: int, queries: int) -> Outcomes:
    """Candidates of which nothing is known: all score alike, and none is called right or wrong."""
    alike = np.full((queries, candidates), 0.5)
    return Outcomes(alike > 1, alike, -alike, np.zeros(alike.shape, np.int32), [None], known=False)


def stated(facts: Stated, accuracies: Sequence[float], queries: int, streams: Streams) -> Outcomes:
    """Candidates right with these chances, correlated within a query; scores of the stated AUC.

    The chance that a query's candidates are right is beta-distributed with the expert's accuracy as its mean and
    `difficulty` as the candidates' correlation; all experts find the same queries hard. Scores are binormal
    (AUC = Phi(d / sqrt 2)) and calibrated: the posterior probability of being right, given the score alone.
    """
    shape = (len(accuracies), queries)
    hard = streams.of("difficulty").random(queries)
    chance = np.array([_chance(accuracy, facts.difficulty, hard) for accuracy in accuracies])
    right = streams.of("right").random(shape) < chance
    mean = np.clip(np.array(accuracies), 1e-6, 1 - 1e-6)[:, None]
    distance = sqrt(2) * float(ndtri(min(facts.value_auc, 1 - 1e-9)))
    said = distance * right + streams.of("scores").standard_normal(shape)
    odds = np.log(mean / (1 - mean)) + distance * said - distance**2 / 2
    hint = sqrt(2) * float(ndtri(0.5 + LOGPROB_SHARE * (min(facts.value_auc, 1 - 1e-9) - 0.5)))
    logprob = -0.5 + 0.1 * (hint * right + streams.of("logprobs").standard_normal(shape))
    label = np.where(right, 0, streams.of("labels").geometric(WRONG_LABELS, shape)).astype(np.int32)
    labels = ["right", *(f"wrong-{number + 1}" for number in range(int(label.max())))]
    value, by_query = 1 / (1 + np.exp(-odds)), np.ascontiguousarray
    return Outcomes(
        by_query(right.T), by_query(value.T), by_query(np.minimum(logprob, -1e-3).T), by_query(label.T), labels
    )


def _chance(accuracy: float, difficulty: float, hard: Floats) -> Floats:
    """The expert's chance for each query: the beta quantile at the query's ease."""
    if difficulty == 0 or accuracy in (0.0, 1.0):
        return np.full(hard.shape, accuracy)
    if difficulty == 1:
        return (hard < accuracy).astype(float)
    spread = (1 - difficulty) / difficulty
    return np.asarray(betaincinv(accuracy * spread, (1 - accuracy) * spread, 1 - hard))


class Drawn:
    """The truth of a run: tables of lengths and outcomes, and which column an expert's sample has.

    `head` says that experts bring their own value. Judges other than the verifier say what the table says.
    """

    def __init__(
        self,
        totals: npt.NDArray[np.int64],
        outcomes: Outcomes,
        columns: dict[tuple[str, int], int],
        head: bool = False,
        verifier_seconds: float | None = None,
    ) -> None:
        self.totals = np.ascontiguousarray(totals)
        self.outcomes = outcomes
        self._columns: dict[str, list[int]] = {model: [] for model, _ in columns}
        for (model, sample), column in sorted(columns.items()):
            assert sample == len(self._columns[model])
            self._columns[model].append(column)
        self.head = head
        self.verifier_seconds = verifier_seconds
        # What a run looks up lies query after query, and is read without numpy's detour.
        self._width: int = totals.shape[1]
        self._totals: Sequence[int] = _flat(self.totals)
        self._right: Sequence[bool] = _flat(outcomes.right)
        self._value: Sequence[float] = _flat(outcomes.value)
        self._logprob: Sequence[float] = _flat(outcomes.logprob)
        self._label: Sequence[int] = _flat(outcomes.label)
        self._labels = outcomes.labels
        self._known = outcomes.known

    def length(self, inference: Inference) -> int:
        if inference.judges:
            return 0
        return left_to_write(self._totals[self._place(inference)], inference)

    def result(self, inference: Inference, new_tokens: int) -> Candidate | Score:
        judged = inference.judges
        if judged:
            place = self._place(judged.inference)
            passed = inference.model == VERIFIER and self.verifier_seconds is not None
            return Score(judged, float(self._right[place]) if passed else self._value[place], inference)
        place = self._place(inference)
        before = inference.continues.total_tokens if inference.continues else 0
        return Candidate(
            inference,
            new_tokens,
            self._logprob[place],
            self._labels[self._label[place]],
            self._value[place] if self.head else None,
            before + new_tokens >= min(self._totals[place], inference.query.max_new_tokens),
        )

    def correct(self, candidate: Candidate) -> bool | None:
        return self._right[self._place(candidate.inference)] if self._known else None

    def seconds_to_verify(self, inference: Inference) -> float | None:
        return self.verifier_seconds if inference.model == VERIFIER else None

    def _place(self, inference: Inference) -> int:
        return inference.query.id * self._width + self._columns[inference.model][inference.sample]


def _flat(table: npt.NDArray[Any]) -> Any:
    """Its rows one after the other."""
    return np.ascontiguousarray(table).reshape(-1).data  # no copy of what lies so already
