"""What the core's counts stand for: the tokens and settings of open queries, and what their candidates wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from octavo.runtime.core.query import Candidate, Inference, Query, Variant
from octavo.runtime.sampling import Sampling, stream_key

Tokens = NDArray[np.int64]
Label = Callable[[str], str | None]
Message = Mapping[str, str]


class Decoder(Protocol):
    """Turns token ids into text."""

    def decode(self, tokens: Tokens) -> str: ...


@dataclass(frozen=True, slots=True)
class Note:
    """A written token's log-probability, and the likeliest tokens in its place: their ids and log-probabilities."""

    logprob: float
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A query with its contents: `prompt` are the tokens that every model reads, but for those with `own_prompts`.

    `number` tells queries of one seed apart. `label` finds in a text what a vote counts; `verify` says whether a text
    is right, for the policy that asks. `listener` hears what each token adds to an inference's text, perhaps nothing
    yet, in a device's thread. Without `ends`, end tokens end nothing: every inference writes its whole budget.
    `grammar` (see `octavo.runtime.grammar.grammar_source`) is what every text must follow. No end token is written
    before `min_tokens`. `noted` asks for a Note of every token, with so many likely ones; None: for none. `asked` is
    the prompt in words, a text or a conversation, for a value model with a tokenizer of its own; None: as the prompt's
    tokens spell it.
    """

    query: Query
    prompt: Tokens
    sampling: Sampling = field(default_factory=Sampling)
    own_sampling: Mapping[str, Sampling] = field(default_factory=dict)
    seed: int = 0
    number: int = 0
    stop: tuple[str, ...] = ()
    label: Label | None = None
    verify: Callable[[str], bool] | None = None
    listener: Callable[[Inference, str], None] | None = None
    ends: bool = True
    grammar: str | None = None
    min_tokens: int = 0
    noted: int | None = None
    own_prompts: Mapping[str, Tokens] = field(default_factory=dict)
    asked: str | Sequence[Message] | None = None

    def prompt_of(self, model: str) -> Tokens:
        return self.own_prompts.get(model, self.prompt)

    def sampling_of(self, model: str) -> Sampling:
        return self.own_sampling.get(model, self.sampling)

    def hear(self, inference: Inference, text: str) -> None:
        """Tell the listener, if there is one; whatever it raises is its own affair and ends nothing here."""
        if self.listener is not None and text:
            with suppress(Exception):
                self.listener(inference, text)

    @property
    def watched(self) -> bool:
        """Whether text must be looked at while it is written."""
        return bool(self.stop) or self.listener is not None


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What a candidate wrote: all of its tokens, with those of the one that it continues, their text and notes."""

    tokens: Tokens
    text: str
    notes: tuple[Note, ...] = ()


class Contents:
    """The contents of open queries. Engines read and add; whoever opens a query closes it."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._requests: dict[Query, Request] = {}
        self._written: dict[Candidate, Written] = {}
        self._of_query: dict[Query, list[Candidate]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def open(self, request: Request) -> None:
        self._requests[request.query] = request
        self._of_query[request.query] = []

    def close(self, query: Query) -> None:
        """Forget a query and all that was written for it."""
        self._requests.pop(query, None)
        for candidate in self._of_query.pop(query, ()):
            self._written.pop(candidate, None)

    def request(self, query: Query) -> Request:
        return self._requests[query]

    def written(self, candidate: Candidate) -> Written:
        return self._written[candidate]

    def sequence(self, inference: Inference) -> Tokens:
        """All that the inference reads before it writes: the prompt, and the candidate it judges or continues."""
        prompt = self._requests[inference.query].prompt_of(inference.model)
        read = inference.judges or inference.continues
        return np.concatenate([prompt, self._written[read].tokens]) if read else prompt

    def key(self, inference: Inference) -> int:
        """Of the inference's random numbers."""
        request = self._requests[inference.query]
        return stream_key(request.seed, request.number, inference.model, inference.sample)

    def add(
        self,
        inference: Inference,
        new: Tokens,
        logprob: float,
        *,
        ended: bool,
        text: str | None = None,
        value: float | None = None,
        notes: tuple[Note, ...] = (),
    ) -> Candidate:
        """Book what an inference wrote. `logprob` is the sum over its own tokens; the candidate gets the mean of all.

        `text` is given where a stop string has cut it; otherwise the tokens are decoded. `value` is what the expert's
        own head said.
        """
        earlier, total = inference.continues, len(new)
        if earlier is not None:
            logprob += earlier.mean_logprob * earlier.total_tokens
            total += earlier.total_tokens
            new_and_old = np.concatenate([self._written[earlier].tokens, new])
            notes = self._written[earlier].notes + notes
        else:
            new_and_old = new
        text = self.decoder.decode(new_and_old) if text is None else text
        request = self._requests.get(inference.query)
        label = _labelled(request.label if request else None, text)
        candidate = Candidate(inference, len(new), logprob / max(total, 1), label, value, ended)
        if request is not None:
            self._written[candidate] = Written(new_and_old, text, notes)
            self._of_query[inference.query].append(candidate)
        return candidate


def prefix_names(tokens: Tokens, chunk: int | None) -> tuple[int, ...]:
    """A name for each whole leading chunk of a prompt; equal names mean equal tokens from the start to there."""
    if chunk is None:
        return ()
    names, digest = [], blake2b(digest_size=8)
    for stop in range(chunk, len(tokens) + 1, chunk):
        digest.update(tokens[stop - chunk : stop].tobytes())
        names.append(int.from_bytes(digest.digest(), "little"))
    return tuple(names)


def variants_of(prompts: Mapping[str, Tokens], chunk: int | None) -> dict[str, Variant]:
    """What the core knows of experts' own prompts."""
    return {model: Variant(len(tokens), prefix_names(tokens, chunk)) for model, tokens in prompts.items()}


def _labelled(label: Label | None, text: str) -> str | None:
    """A user's function that fails has found no label."""
    if label is None:
        return normal(text)
    with suppress(Exception):
        return label(text)
    return None


def normal(text: str) -> str | None:
    """The label of a text where nothing better is known: the text itself, less the white space around and in it."""
    return " ".join(text.split()) or None
