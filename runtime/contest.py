"""The ways of answering that an evaluation compares, played over the same candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from octavo.runtime.core.policies import Deliberation, Policy, policy_named
from octavo.runtime.core.query import Candidate, Ensemble, Query
from octavo.runtime.playback import Played, Store, play, store
from octavo.runtime.sampled import Sampled
from octavo.runtime.statistics import Floats, Interval, share

Candidates = Mapping[str, Sequence[Sampled]]  # by task


@dataclass(frozen=True, slots=True)
class Way:
    """A policy with its settings. `timed` says that it is also run on the real engine, one query at a time."""

    key: str
    label: str
    policy: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs_value: bool = False
    timed: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One way of answering: per task whether it was right, and what it took on the mean.

    `seconds` is the median latency of a query asked alone, measured; `tokens_per_second` what it wrote meanwhile.
    """

    key: str
    label: str
    right: Floats
    inferences: float
    tokens: float
    note: str = ""
    seconds: float | None = None
    tokens_per_second: float | None = None

    @property
    def accuracy(self) -> Interval:
        return share(self.right)

    def timed(self, seconds: float, tokens_per_second: float) -> Row:
        return replace(self, seconds=seconds, tokens_per_second=tokens_per_second)


def ways(best: str, samples: int, best_of: int) -> list[Way]:
    """The policies over all experts, and those of the best expert alone."""
    of_best = {"expert": best, "samples": best_of}
    crowd = f"all experts x {samples}"
    return [
        Way("sampled", f"{best}, sampled once", "single", {"expert": best}),
        Way("best_of_n", f"{best} x {best_of}, value model picks", "best_of_n", of_best | {"by": "value"}, True),
        Way("best_of_n_majority", f"{best} x {best_of}, majority", "best_of_n", of_best | {"by": "majority"}),
        Way("best_of_n_logprob", f"{best} x {best_of}, log-prob", "best_of_n", of_best | {"by": "mean_logprob"}),
        Way("majority", f"{crowd}, majority", "majority"),
        Way("mean_logprob", f"{crowd}, mean log-prob", "mean_logprob"),
        Way("ensemble", f"{crowd}, value model picks", "ensemble", {}, True),
        Way("weighted_vote", f"{crowd}, votes weighted by value", "weighted_vote", {}, True),
        Way("early_exit", f"{crowd}, stop at value 0.9", "early_exit", {"sure_at": 0.9}, True),
        Way("cascade", f"{best} first, all below value 0.8", "cascade", {"first": best, "accept_at": 0.8}, True),
        Way("filtered", f"{crowd}, verifier drops, log-prob picks", "filtered"),
    ]


def pruning(crowd: Candidates, samples: int) -> Way:
    """Drop the weaker half of all experts' candidates after half of what they write at the median."""
    half = max(1, round(float(np.median([each.new_tokens for found in crowd.values() for each in found])) / 2))
    label = f"all experts x {samples}, weaker half dropped after {half} tokens"
    return Way("pruned", label, "pruned", {"after_tokens": half}, True)


def counted(policy: Policy, spent: list[int]) -> Policy:
    """The policy; the new tokens of every candidate and prefix that reaches it go to `spent`."""

    def counting(panel: Ensemble, query: Query) -> Deliberation:
        deliberation = policy(panel, query)
        try:
            result = yield next(deliberation)
            while True:
                if isinstance(result, Candidate):
                    spent.append(result.new_tokens)
                result = yield deliberation.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    return counting


def greedy_rows(greedy: Candidates, best: str, note: str) -> list[Row]:
    """The best expert's greedy answer, and the mean over the experts."""
    experts = list(dict.fromkeys(each.expert for found in greedy.values() for each in found))
    by_expert = {expert: right_by(greedy, expert) for expert in experts}
    rows = [Row("single", f"{best}, greedy", by_expert[best], 1.0, _tokens(greedy, best), note)]
    if len(experts) > 1:
        worst = min(experts, key=lambda expert: by_expert[expert].mean())
        mean = np.mean(list(by_expert.values()), axis=0)
        tokens = float(np.mean([_tokens(greedy, expert) for expert in experts]))
        low = f"{worst} {by_expert[worst].mean():.3f} is the weakest of {len(experts)}"
        rows.append(Row("greedy_mean", "one expert, greedy, mean over experts", mean, 1.0, tokens, low))
    return rows


def right_by(candidates: Candidates, expert: str) -> Floats:
    """Per task the share of an expert's candidates that are right; none is, where all were lost."""
    verdicts = [[each.correct for each in found if each.expert == expert] for found in candidates.values()]
    return np.array([np.mean(each) if each else 0.0 for each in verdicts])


def arrived(candidates: Candidates, expert: str) -> list[Sampled]:
    """An expert's candidates of all tasks."""
    return [each for found in candidates.values() for each in found if each.expert == expert]


def _tokens(candidates: Candidates, expert: str) -> float:
    return sum(each.new_tokens for each in arrived(candidates, expert)) / len(candidates)


def contest(lineup: Sequence[Way], ensemble: Ensemble, candidates: Candidates, *, judged: bool) -> list[Row]:
    """Play each way over every task's candidates; ways that need values are left out where nothing is `judged`."""
    stores = [store(found) for found in candidates.values()]
    return [_row(way, ensemble, stores) for way in lineup if judged or not way.needs_value]


def _row(way: Way, ensemble: Ensemble, stores: Sequence[Store]) -> Row:
    policy = policy_named(way.policy, **way.settings)
    played: list[Played] = [play(policy, ensemble, found, number) for number, found in enumerate(stores)]
    right = np.array([each.chosen is not None and each.chosen.correct for each in played], float)
    inferences = float(np.mean([each.inferences for each in played]))
    return Row(way.key, way.label, right, inferences, float(np.mean([each.tokens for each in played])))


def oracle(candidates: Candidates, samples: int) -> Row:
    """Right where any candidate of the ensemble is: what a perfect value model would reach."""
    found = [[each for each in row if each.sample < samples] for row in candidates.values()]
    right = np.array([any(each.correct for each in row) for row in found], float)
    tokens = float(np.mean([sum(each.new_tokens for each in row) for row in found]))
    note = "a bound, not a way of answering: it knows the right one"
    return Row("oracle", f"all experts x {samples}, oracle", right, float(np.mean(list(map(len, found)))), tokens, note)
