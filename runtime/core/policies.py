"""Policies: each turns a query into inferences and an answer.

A policy is a generator. It yields the inferences to start, is sent one result at a time, and returns the answer;
returning withdraws whatever still runs. It never sees a clock, a token or a length that has not been reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import exp
from typing import Literal, TypeAlias

from octavo.runtime.core.query import (
    Answer,
    Candidate,
    Ensemble,
    Expired,
    Inference,
    Lost,
    NoAnswer,
    Query,
    Result,
    Score,
)

Deliberation: TypeAlias = Generator[list[Inference], Result, Answer]
Policy: TypeAlias = Callable[[Ensemble, Query], Deliberation]
Ranking: TypeAlias = Literal["value", "mean_logprob", "majority", "weighted_vote"]
RANKINGS: tuple[Ranking, ...] = ("value", "mean_logprob", "majority", "weighted_vote")
JUDGED: tuple[Ranking, ...] = ("value", "weighted_vote")


@dataclass(slots=True, eq=False, init=False)
class Tally:
    """What has arrived for one query, and how many results are still out.

    Only those on the `shortlist`, where there is one, may be chosen. `heads` says whether a value that an expert's own
    head gave counts as a score.
    """

    ensemble: Ensemble
    query: Query
    heads: bool
    out: int
    candidates: list[Candidate]
    scores: list[Score]
    shortlist: list[Candidate]
    lost: int
    why: str  # the first was lost
    expired: bool

    def __init__(self, ensemble: Ensemble, query: Query, heads: bool = True) -> None:
        self.ensemble = ensemble
        self.query = query
        self.heads = heads
        self.out = self.lost = 0
        self.candidates = []
        self.scores = []
        self.shortlist = []
        self.why = ""
        self.expired = False

    def start(self, inferences: list[Inference]) -> list[Inference]:
        self.out += len(inferences)
        return inferences

    def note(self, result: Result) -> None:
        """Book one result. A candidate from an expert with a value head brings its own score."""
        match result:
            case Candidate():
                self.candidates.append(result)
                if self.heads and result.value is not None:
                    self.scores.append(Score(result, result.value))
            case Score():
                self.scores.append(result)
            case Lost():
                self.lost += 1
                self.why = self.why or f": {result.reason}"
            case Expired():
                self.expired = True
                return
        self.out -= 1

    @property
    def waiting(self) -> bool:
        return self.out > 0 and not self.expired

    @property
    def eligible(self) -> list[Candidate]:
        return self.shortlist or self.candidates

    def judge(self, result: Result) -> list[Inference]:
        """The inference that scores a candidate just arrived; none where it carries its own value."""
        model = self.ensemble.value_model
        if not isinstance(result, Candidate) or model is None or (self.heads and result.value is not None):
            return []
        query, sample, extra = result.inference.query, result.inference.sample, self.ensemble.judge_tokens
        return self.start([Inference(query, model, sample, judges=result, extra_tokens=extra)])

    def choose(self, best: Candidate, reason: str) -> Answer:
        degraded = self.lost > 0 or self.expired
        return Answer(self.query, best, reason, tuple(self.candidates), tuple(self.scores), degraded)

    def by_score(self, reason: str = "highest value") -> Answer:
        """The best-scored candidate; the likeliest one when the value model brought no score at all."""
        self.demand_enough(self.candidates)
        if not self.scores:
            return self.by_logprob("no score arrived; highest mean log-probability")
        return self.choose(best_of(self.scores).candidate, reason)

    def by_logprob(self, reason: str = "highest mean log-probability") -> Answer:
        self.demand_enough(self.candidates)
        return self.choose(min(self.eligible, key=likeliest_first), reason)

    def by_vote(self, weight: Callable[[Candidate], float], reason: str) -> Answer:
        """The label with the most weight, spoken by its likeliest candidate. Candidates without a label don't vote.

        Of labels with equal weight the one with the likeliest speaker wins.
        """
        self.demand_enough(self.candidates)
        votes = count_votes(self.eligible, weight)
        if not votes:
            return self.by_logprob("no candidate has an answer to vote on; highest mean log-probability")
        speakers = [candidate for candidate in self.eligible if candidate.answer is not None]
        return self.choose(min(speakers, key=lambda each: (-votes[str(each.answer)], likeliest_first(each))), reason)

    def by(self, ranking: Ranking) -> Answer:
        """The answer by one of the rankings that policies offer."""
        match ranking:
            case "value":
                return self.by_score()
            case "mean_logprob":
                return self.by_logprob()
            case "majority":
                return self.by_vote(lambda candidate: 1.0, "most votes")
            case "weighted_vote":
                values = {score.candidate: score.value for score in self.scores}
                weight = lambda candidate: values.get(candidate, exp(candidate.mean_logprob))  # noqa: E731
                return self.by_vote(weight, "most weighted votes")

    def demand_enough(self, candidates: list[Candidate]) -> None:
        needed = min(self.ensemble.min_candidates, len(self.candidates) + self.lost + self.out)
        if len(candidates) < max(needed, 1):
            lost = f"{self.lost} were lost{self.why}"
            when = " by the deadline" if self.expired else ""
            raise NoAnswer(f"{len(candidates)} candidates arrived{when}, {max(needed, 1)} are needed ({lost})")


def demand(policy: str, **settings: tuple[object, tuple[str, ...] | int]) -> None:
    """Raise ValueError where a setting is none of its choices, or less than its least whole number."""
    for name, (value, allowed) in settings.items():
        if isinstance(allowed, int):
            if not isinstance(value, int) or value < allowed:
                raise ValueError(f"{policy}: {name} must be a whole number of at least {allowed}, got {value!r}")
        elif value not in allowed:
            raise ValueError(f"{policy}: {name} must be one of {', '.join(allowed)}, got {value!r}")


def likeliest_first(candidate: Candidate) -> tuple[float, str, int]:
    """The order of candidates that are otherwise alike: never that of their arrival, which no seed decides."""
    return -candidate.mean_logprob, candidate.inference.model, candidate.inference.sample


def best_first(score: Score) -> tuple[float, tuple[float, str, int]]:
    """The order of what a judge said."""
    return -score.value, likeliest_first(score.candidate)


def best_of(scores: list[Score]) -> Score:
    """The first by `best_first`, whose keys are made only where values are equal."""
    best = scores[0]
    for score in scores:
        if score.value > best.value or (score.value == best.value and best_first(score) < best_first(best)):
            best = score
    return best


def count_votes(candidates: Iterable[Candidate], weight: Callable[[Candidate], float]) -> dict[str, float]:
    """Weight behind each answer label."""
    votes: dict[str, float] = defaultdict(float)
    for candidate in candidates:
        if candidate.answer is not None:
            votes[candidate.answer] += weight(candidate)
    return votes


def gather(tally: Tally, inferences: list[Inference], *, judged: bool) -> Generator[list[Inference], Result, None]:
    """Start inferences and wait for all of them; `judged` also asks for a score of each as it lands."""
    if not inferences:
        return
    result = yield tally.start(inferences)
    while True:
        tally.note(result)
        follow_up = tally.judge(result) if judged else []
        if not tally.waiting:
            return
        result = yield follow_up


def ensemble(panel: Ensemble, query: Query) -> Deliberation:
    """Ask every expert, judge each candidate as it lands, answer with the best."""
    tally = Tally(panel, query)
    yield from gather(tally, panel.ask_all(query), judged=True)
    return tally.by_score()


def single(panel: Ensemble, query: Query, expert: str | None = None) -> Deliberation:
    """Ask one expert once."""
    tally = Tally(panel, query)
    yield from gather(tally, [Inference(query, expert or panel.experts[0])], judged=False)
    return tally.by_logprob("the only candidate")


def best_of_n(
    panel: Ensemble, query: Query, expert: str | None = None, samples: int = 16, by: Ranking = "value"
) -> Deliberation:
    """Ask one expert `samples` times, answer with the best by a ranking."""
    demand("best_of_n", by=(by, RANKINGS), samples=(samples, 1))
    tally = Tally(panel, query)
    asked = [Inference(query, expert or panel.experts[0], sample) for sample in range(samples)]
    yield from gather(tally, asked, judged=by in JUDGED)
    return tally.by(by)


def majority(panel: Ensemble, query: Query) -> Deliberation:
    """Ask every expert, answer with the label that most candidates share (self-consistency)."""
    tally = Tally(panel, query)
    yield from gather(tally, panel.ask_all(query), judged=False)
    return tally.by("majority")


def mean_logprob(panel: Ensemble, query: Query) -> Deliberation:
    """Ask every expert, answer with the candidate its own model found likeliest per token."""
    tally = Tally(panel, query)
    yield from gather(tally, panel.ask_all(query), judged=False)
    return tally.by_logprob()


def weighted_vote(panel: Ensemble, query: Query) -> Deliberation:
    """Ask every expert; each candidate votes with its score (its probability, where nothing judges)."""
    tally = Tally(panel, query)
    yield from gather(tally, panel.ask_all(query), judged=True)
    return tally.by("weighted_vote")


def filtered(
    panel: Ensemble,
    query: Query,
    verifier: str = "verifier",
    then: Ranking = "mean_logprob",
    expert: str | None = None,
    samples: int | None = None,
) -> Deliberation:
    """Ask, let a verifier drop the candidates that fail its tests, rank the rest (all of them, when none passes).

    The verifier is the model named `verifier`; a candidate passes when its score is at least one half. Ranking the
    survivors by mean log-probability is what Codex did (Chen et al. 2021, section 4.5).
    """
    if then not in ("mean_logprob", "majority"):
        raise ValueError(f"filtered ranks what passed by mean_logprob or majority, got {then!r}")
    demand("filtered", samples=(1 if samples is None else samples, 1))
    tally = Tally(replace(panel, value_model=verifier, judge_tokens=0), query, heads=False)
    experts = (expert,) if expert else panel.experts
    count = samples or panel.samples_per_expert
    yield from gather(tally, [Inference(query, name, i) for name in experts for i in range(count)], judged=True)
    tally.shortlist = [score.candidate for score in tally.scores if score.value >= 0.5]
    return tally.by(then)


def early_exit(
    panel: Ensemble, query: Query, sure_at: float = 0.9, by: Literal["value", "majority"] = "value"
) -> Deliberation:
    """Ask every expert, stop when a score reaches `sure_at`, or (`by` majority) when no vote can change the winner."""
    demand("early_exit", by=(by, ("value", "majority")))
    tally = Tally(panel, query)
    result = yield tally.start(panel.ask_all(query))
    while True:
        tally.note(result)
        if by == "value" and tally.scores and tally.scores[-1].value >= sure_at:
            return tally.by_score(f"value reached {sure_at:g}")
        if by == "majority" and vote_is_decided(tally):
            return tally.by_vote(lambda candidate: 1.0, "no vote still out can change the majority")
        follow_up = tally.judge(result) if by == "value" else []
        if not tally.waiting:
            return tally.by(by)
        result = yield follow_up


def vote_is_decided(tally: Tally) -> bool:
    """Whether the leader stays ahead even if every result still out votes for the runner-up."""
    votes = sorted(count_votes(tally.candidates, lambda candidate: 1.0).values(), reverse=True)
    runner_up = votes[1] if len(votes) > 1 else 0.0
    return bool(votes) and votes[0] > runner_up + tally.out


def cascade(panel: Ensemble, query: Query, first: str | None = None, accept_at: float = 0.8) -> Deliberation:
    """Ask one expert (an edge device's, say); escalate to the whole ensemble when its score is below `accept_at`.

    Without a value model the score is the candidate's probability per token, exp(mean log-probability).
    """
    tally = Tally(panel, query)
    first = first or panel.experts[0]
    yield from gather(tally, [Inference(query, first)], judged=True)
    value = (
        tally.scores[-1].value if tally.scores else max((exp(c.mean_logprob) for c in tally.candidates), default=0.0)
    )
    if tally.expired:
        return tally.by_score("deadline before escalation")
    if tally.candidates and value >= accept_at:
        return tally.choose(tally.candidates[-1], f"first expert's value reached {accept_at:g}")
    asked = [inference for inference in panel.ask_all(query) if (inference.model, inference.sample) != (first, 0)]
    yield from gather(tally, asked, judged=True)
    return tally.by_score()


def pruned(panel: Ensemble, query: Query, after_tokens: int = 16, keep: float = 0.5) -> Deliberation:
    """Write `after_tokens` of every candidate, judge the prefixes, continue the better part (speculative rejection)."""
    demand("pruned", after_tokens=(after_tokens, 1))
    if not 0 < keep <= 1:
        raise ValueError(f"pruned: keep must be in (0, 1], got {keep}")
    tally = Tally(panel, query)
    short = min(after_tokens, query.max_new_tokens)
    asked = [Inference(i.query, i.model, i.sample, max_new_tokens=short) for i in panel.ask_all(query)]
    yield from gather(tally, asked, judged=True)
    ranked = sorted(tally.scores, key=best_first)
    kept = [score.candidate for score in ranked[: max(1, round(keep * len(ranked)))]] or list(tally.candidates)
    left = query.max_new_tokens - short
    going = [c for c in kept if not c.finished] if left > 0 and not tally.expired else []
    if going:
        tally.candidates = [candidate for candidate in tally.candidates if candidate.finished]
        tally.scores = [score for score in tally.scores if score.candidate.finished]
        resumed = [
            Inference(query, c.inference.model, c.inference.sample, continues=c, max_new_tokens=left) for c in going
        ]
        yield from gather(tally, resumed, judged=True)
    return tally.by_score()


POLICIES: dict[str, Policy] = {
    "ensemble": ensemble,
    "single": single,
    "best_of_n": best_of_n,
    "majority": majority,
    "weighted_vote": weighted_vote,
    "mean_logprob": mean_logprob,
    "filtered": filtered,
    "early_exit": early_exit,
    "cascade": cascade,
    "pruned": pruned,
}


def policy_named(name: str, **settings: object) -> Policy:
    """The policy of that name with its settings fixed. Raises ValueError naming the policies there are."""
    if name not in POLICIES:
        raise ValueError(f"no policy {name!r}; there are: {', '.join(POLICIES)}")
    return partial(POLICIES[name], **settings) if settings else POLICIES[name]
