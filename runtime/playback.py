"""Plays a policy of the core over candidates that were sampled before: what it would answer, and what it would cost.

Time is counted in tokens: candidates that start together land in the order of their lengths; a judge answers at once.
What a policy that stops early saves therefore does not depend on the machine's mood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from octavo.runtime.core.policies import Policy
from octavo.runtime.core.query import Answer, Candidate, Ensemble, Inference, Lost, NoAnswer, Query, Score
from octavo.runtime.sampled import Sampled
from octavo.runtime.verifier import VERIFIER

Store = Mapping[tuple[str, int], Sampled]


@dataclass(frozen=True, slots=True)
class Played:
    """What a policy chose for a query, how many inferences it started, and the tokens they wrote until it answered.

    It chose nothing where too few candidates arrived.
    """

    chosen: Sampled | None
    inferences: int
    tokens: int


def store(candidates: Sequence[Sampled]) -> Store:
    return {(each.expert, each.sample): each for each in candidates}


def play(policy: Policy, ensemble: Ensemble, found: Store, number: int = 0) -> Played:
    """Let a policy decide over stored candidates; one that is not among them was lost when it was sampled."""
    longest = max((each.new_tokens for each in found.values()), default=1)
    deliberation = policy(ensemble, Query(number, 1, max(longest, 1)))
    running: list[tuple[int, int, Inference]] = []
    began: dict[Inference, int] = {}
    tokens = clock = 0
    ready: list[Candidate | Score | Lost] = []
    chosen = None
    try:
        starting = next(deliberation)
        while True:
            for inference in starting:
                if inference.judges is None and (inference.model, inference.sample) not in found:
                    began[inference] = clock
                    ready.append(Lost(inference, "it was lost when it was sampled"))
                elif inference.judges is None:
                    began[inference] = clock
                    heappush(running, (clock + _of(found, inference).new_tokens, len(began), inference))
                else:
                    ready.append(_score(found, inference))
            if ready:
                starting = deliberation.send(ready.pop(0))
                continue
            clock, _, inference = heappop(running)
            tokens += _of(found, inference).new_tokens
            starting = deliberation.send(_candidate(found, inference, headed=ensemble.value_model is None))
    except StopIteration as stop:
        answer: Answer = stop.value
        chosen = _of(found, answer.candidate.inference)
    except NoAnswer:
        pass
    tokens += sum(clock - began[inference] for _, _, inference in running)
    return Played(chosen, len(began), tokens)


def _of(found: Store, inference: Inference) -> Sampled:
    return found[inference.model, inference.sample]


def _candidate(found: Store, inference: Inference, *, headed: bool) -> Candidate:
    """Where no model judges, a candidate's value is what its expert's own head said."""
    sampled = _of(found, inference)
    value = sampled.value if headed else None
    return Candidate(inference, sampled.new_tokens, sampled.mean_logprob, sampled.answer, value)


def _score(found: Store, judge: Inference) -> Score:
    assert judge.judges is not None
    sampled = _of(found, judge.judges.inference)
    value = float(sampled.correct) if judge.model == VERIFIER else sampled.value
    return Score(judge.judges, 0.0 if value is None else value, judge)
