"""The nouns of an ensemble: queries, inferences, candidates, scores, answers. They carry counts, never contents.

Two inferences with equal fields are still two: these objects are equal only to themselves. What a run makes millions of
writes its `__init__` out: compiled, one that `dataclass` makes stays interpreted and costs more than all else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Variant:
    """The prompt as one model reads it, where that is another than the query's: its length, and its prefix's hashes."""

    prompt_tokens: int
    prefix: tuple[int, ...] = ()


@dataclass(slots=True, eq=False, init=False)
class Query:
    """What a user asks: the length of its prompt, a budget of new tokens, perhaps the hashes of the prompt's prefix.

    `prefix` holds one hash per leading chunk of the prompt (its size is the scheduler's `hash_tokens`); equal hashes
    mean equal tokens up to there, so that their KV can be shared. Inferences of one query by one model always share its
    prompt; `variants` are of experts that read a prompt of their own.
    """

    id: Final[int]
    prompt_tokens: Final[int]
    max_new_tokens: Final[int]
    prefix: Final[tuple[int, ...]]
    variants: Final[dict[str, Variant] | None]

    def __init__(
        self,
        id: int,
        prompt_tokens: int,
        max_new_tokens: int,
        prefix: tuple[int, ...] = (),
        variants: dict[str, Variant] | None = None,
    ) -> None:
        self.id = id
        self.prompt_tokens = prompt_tokens
        self.max_new_tokens = max_new_tokens
        self.prefix = prefix
        self.variants = variants or None
        if self.prompt_tokens < 1 or self.max_new_tokens < 1:
            raise ValueError(
                f"query {self.id}: prompt_tokens and max_new_tokens must be at least 1, "
                f"got {self.prompt_tokens} and {self.max_new_tokens}"
            )


@dataclass(slots=True, eq=False, init=False)
class Inference:
    """One run of one model for a query.

    A judge reads the prompt and a candidate and writes nothing. An inference that continues a candidate takes up where
    that one stopped; `max_new_tokens` is its own budget where it differs from the query's. `extra_tokens` are those of
    a judge's own template. `prompt_tokens` are those to prefill: the prompt, whatever of a candidate is read after it,
    and a judge's template.
    """

    query: Final[Query]
    model: Final[str]
    sample: Final[int]
    judges: Final[Candidate | None]
    continues: Final[Candidate | None]
    max_new_tokens: Final[int | None]
    extra_tokens: Final[int]
    prompt_tokens: Final[int]

    def __init__(
        self,
        query: Query,
        model: str,
        sample: int = 0,
        judges: Candidate | None = None,
        continues: Candidate | None = None,
        max_new_tokens: int | None = None,
        extra_tokens: int = 0,
    ) -> None:
        self.query = query
        self.model = model
        self.sample = sample
        self.judges = judges
        self.continues = continues
        self.max_new_tokens = max_new_tokens
        self.extra_tokens = extra_tokens
        own, read = self.variant, judges or continues
        prompt = query.prompt_tokens if own is None else own.prompt_tokens
        self.prompt_tokens = prompt + extra_tokens + (read.total_tokens if read else 0)

    @property
    def prefix(self) -> tuple[int, ...]:
        """Hashes of the leading chunks of the prompt that this model reads."""
        own = self.variant
        return self.query.prefix if own is None else own.prefix

    @property
    def variant(self) -> Variant | None:
        """Its model's own form of the prompt; None where it reads the query's."""
        return None if self.query.variants is None else self.query.variants.get(self.model)

    @property
    def budget(self) -> int:
        """New tokens that it may write; a judge writes none."""
        if self.judges:
            return 0
        return self.query.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens


@dataclass(slots=True, eq=False, init=False)
class Candidate:
    """A finished inference: how much it wrote, how likely the model found it, and the label that a vote counts.

    `value` is set when the expert itself carries a value head; otherwise a judge's Score brings it. `finished` is
    false for a prefix that was stopped by its inference's own budget, to be pruned or continued. `total_tokens` counts
    those of the candidate that it continues too.
    """

    inference: Final[Inference]
    new_tokens: Final[int]
    mean_logprob: Final[float]
    answer: Final[str | None]
    value: Final[float | None]
    finished: Final[bool]
    total_tokens: Final[int]

    def __init__(
        self,
        inference: Inference,
        new_tokens: int,
        mean_logprob: float = 0.0,
        answer: str | None = None,
        value: float | None = None,
        finished: bool = True,
    ) -> None:
        self.inference = inference
        self.new_tokens = new_tokens
        self.mean_logprob = mean_logprob
        self.answer = answer
        self.value = value
        self.finished = finished
        earlier = inference.continues
        self.total_tokens = new_tokens + (earlier.total_tokens if earlier else 0)


@dataclass(slots=True, eq=False, init=False)
class Score:
    """What the value model says of a candidate: the probability of its being right, in [0, 1].

    `judge` is the inference that brought it; None when the expert's own value head did.
    """

    candidate: Final[Candidate]
    value: Final[float]
    judge: Final[Inference | None]

    def __init__(self, candidate: Candidate, value: float, judge: Inference | None = None) -> None:
        self.candidate = candidate
        self.value = value
        self.judge = judge


@dataclass(slots=True, eq=False, init=False)
class Lost:
    """An inference that will bring nothing: its model died, returned NaN or ran out of time."""

    inference: Final[Inference]
    reason: Final[str]

    def __init__(self, inference: Inference, reason: str) -> None:
        self.inference = inference
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Expired:
    """The query's deadline: answer now with what has arrived."""

    query: Query


Result: TypeAlias = Candidate | Score | Lost | Expired


@dataclass(slots=True, eq=False, init=False)
class Answer:
    """The chosen candidate and why: every candidate that arrived, and its score where one was asked for."""

    query: Final[Query]
    candidate: Final[Candidate]
    reason: Final[str]
    candidates: Final[tuple[Candidate, ...]]
    scores: Final[tuple[Score, ...]]
    degraded: Final[bool]

    def __init__(
        self,
        query: Query,
        candidate: Candidate,
        reason: str,
        candidates: tuple[Candidate, ...],
        scores: tuple[Score, ...] = (),
        degraded: bool = False,
    ) -> None:
        self.query = query
        self.candidate = candidate
        self.reason = reason
        self.candidates = candidates
        self.scores = scores
        self.degraded = degraded


class NoAnswer(Exception):
    """Raised by a policy that cannot answer: too few candidates arrived."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Who is asked, how often, who judges (with a template of `judge_tokens`), how few candidates make an answer."""

    experts: tuple[str, ...]
    samples_per_expert: int = 2
    value_model: str | None = None
    min_candidates: int = 1
    judge_tokens: int = 0

    def __post_init__(self) -> None:
        if not self.experts or self.samples_per_expert < 1:
            raise ValueError("an ensemble has at least one expert and one sample per expert")
        if not 1 <= self.min_candidates <= self.inferences_per_query:
            raise ValueError(f"min_candidates must be in [1, {self.inferences_per_query}], got {self.min_candidates}")

    @property
    def inferences_per_query(self) -> int:
        return len(self.experts) * self.samples_per_expert

    def ask_all(self, query: Query) -> list[Inference]:
        """Every expert, `samples_per_expert` times."""
        return [
            Inference(query, expert, sample) for expert in self.experts for sample in range(self.samples_per_expert)
        ]
