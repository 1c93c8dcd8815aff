"""What crosses the network: an errand, all that a branch is asked for a query at once, and the news that come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from octavo.runtime.contents import Contents, Message, Note, Request, Tokens
from octavo.runtime.core.query import Candidate, Inference, Lost, Score
from octavo.runtime.engine import Ended
from octavo.runtime.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Earlier:
    """A candidate that is judged or continued: whose it is, all of its tokens (int64) and what is known of them."""

    model: str
    sample: int
    tokens: Tokens
    text: str
    mean_logprob: float
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """One inference of an errand; see `octavo.runtime.core.query.Inference`."""

    model: str
    sample: int
    max_new_tokens: int | None
    extra_tokens: int
    judges: Earlier | None
    continues: Earlier | None


@dataclass(frozen=True, slots=True)
class Errand:
    """Everything that one branch needs to run some inferences of one query. `watched` asks for the text as it grows.

    `own_prompts`, with their prefixes, are of the experts here that read a prompt of their own. `words` are the
    prompt's, where there is something to judge.
    """

    prompt: Tokens
    prefix: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling
    own_sampling: Mapping[str, Sampling]
    seed: int
    number: int
    stop: tuple[str, ...]
    ends: bool
    watched: bool
    asked: tuple[Asked, ...]
    grammar: str | None = None
    min_tokens: int = 0
    noted: int | None = None
    own_prompts: Mapping[str, Tokens] = field(default_factory=dict)
    own_prefixes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    words: str | Sequence[Message] | None = None


@dataclass(frozen=True, slots=True)
class Grew:
    """The text that an inference (its place in the errand) has grown by."""

    place: int
    text: str


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the errand's arrival at its branch: when an inference's prompt began, and its first token came."""

    scheduled: float | None
    first_token: float | None

    def after(self, start: float) -> tuple[float | None, float | None]:
        """The same on a clock that said `start` when the errand was sent; its way there counts as no time."""
        scheduled = None if self.scheduled is None else start + self.scheduled
        return scheduled, None if self.first_token is None else start + self.first_token


@dataclass(frozen=True, slots=True)
class Wrote:
    """A candidate: its own new tokens (int64), the sum of their log-probabilities, its whole text."""

    place: int
    times: Times
    tokens: Tokens
    logprob: float
    text: str
    value: float | None
    finished: bool
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's score."""

    place: int
    times: Times
    value: float


@dataclass(frozen=True, slots=True)
class Failed:
    """An inference that will bring nothing."""

    place: int
    reason: str


News: TypeAlias = Grew | Wrote | Judged | Failed


def errand_of(inferences: tuple[Inference, ...], contents: Contents) -> Errand:
    """The errand that asks for these inferences, which are of one query."""
    query = inferences[0].query
    request = contents.request(query)
    models = {inference.model for inference in inferences}
    return Errand(
        request.prompt,
        query.prefix,
        query.max_new_tokens,
        request.sampling,
        request.own_sampling,
        request.seed,
        request.number,
        request.stop,
        request.ends,
        request.listener is not None,
        tuple(_asked(inference, contents) for inference in inferences),
        request.grammar,
        request.min_tokens,
        request.noted,
        {model: tokens for model, tokens in request.own_prompts.items() if model in models},
        {model: variant.prefix for model, variant in (query.variants or {}).items() if model in models},
        request.asked if any(inference.judges for inference in inferences) else None,
    )


def _asked(inference: Inference, contents: Contents) -> Asked:
    def earlier(candidate: Candidate | None) -> Earlier | None:
        if candidate is None:
            return None
        written, whose = contents.written(candidate), candidate.inference
        return Earlier(whose.model, whose.sample, written.tokens, written.text, candidate.mean_logprob, written.notes)

    return Asked(
        inference.model,
        inference.sample,
        inference.max_new_tokens,
        inference.extra_tokens,
        earlier(inference.judges),
        earlier(inference.continues),
    )


def inferences_of(errand: Errand, request: Request, contents: Contents) -> list[Inference]:
    """The errand's inferences as those of an open request here; what they judge or continue is put into `contents`."""

    def planted(earlier: Earlier | None) -> Candidate | None:
        if earlier is None:
            return None
        whose = Inference(request.query, earlier.model, earlier.sample)
        total = earlier.mean_logprob * len(earlier.tokens)
        return contents.add(whose, earlier.tokens, total, ended=False, text=earlier.text, notes=earlier.notes)

    return [
        Inference(
            request.query,
            asked.model,
            asked.sample,
            planted(asked.judges),
            planted(asked.continues),
            asked.max_new_tokens,
            asked.extra_tokens,
        )
        for asked in errand.asked
    ]


def news_of(result: Ended, place: int, times: Times, contents: Contents) -> News:
    """A result as it is sent."""
    match result:
        case Lost():
            return Failed(place, result.reason)
        case Score():
            return Judged(place, times, result.value)
        case Candidate():
            written, earlier = contents.written(result), result.inference.continues
            before = earlier.total_tokens if earlier else 0
            total = result.mean_logprob * result.total_tokens - (earlier.mean_logprob * before if earlier else 0.0)
            own = np.ascontiguousarray(written.tokens[before:])
            notes = written.notes[before:]
            return Wrote(place, times, own, total, written.text, result.value, result.finished, notes)


def result_of(news: Wrote | Judged | Failed, inference: Inference, contents: Contents) -> Ended:
    """What a branch says of an inference, as a result of that inference here."""
    match news:
        case Failed():
            return Lost(inference, news.reason)
        case Judged():
            if inference.judges is None:
                return Lost(inference, f"{inference.model}: a score of nothing")
            return Score(inference.judges, news.value, inference)
        case Wrote():
            return contents.add(
                inference,
                news.tokens,
                news.logprob,
                ended=news.finished,
                text=news.text,
                value=news.value,
                notes=news.notes,
            )
