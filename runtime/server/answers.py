"""What a client gets: results in the shapes of OpenAI's API, with what the ensemble did beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from time import time
from typing import Literal, Self
from uuid import uuid4

from pydantic import BaseModel

from octavo.runtime.local import Finish, Reply
from octavo.runtime.server.desk import Answered, Taken
from octavo.runtime.server.logprobs import ChatLogprobs, TextLogprobs
from octavo.runtime.server.requests import ChatRequest


class Usage(BaseModel):
    """Tokens of the prompt and of the choices that are returned; those of all candidates are in `octavo`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, new: int) -> Self:
        return cls(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)


class Deliberation(BaseModel):
    """What stands behind an answer. `total_tokens` are the new tokens of all candidates; `seed` gives it again.

    `fallback` says why it ran on another provider than the one asked for, where it did.
    """

    candidates: int
    total_tokens: int
    chosen_expert: str
    value: float | None
    degraded: bool
    reason: str
    seed: int
    fallback: str | None = None


class Spoken(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: Spoken
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Finish


class Envelope(BaseModel):
    id: str
    created: int
    model: str
    usage: Usage
    octavo: Deliberation


class ChatCompletion(Envelope):
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class Completion(Envelope):
    object: Literal["text_completion"] = "text_completion"
    choices: list[TextChoice]


def returned(answered: Answered, n: int) -> list[Reply]:
    """The chosen candidate first, then the best of the others; fewer than `n` where some were lost."""

    def rank(reply: Reply) -> tuple[bool, float, float]:
        return (not reply.chosen, -(finite(reply.value) or 0.0), -reply.mean_logprob)

    return sorted(answered.result.candidates, key=rank)[:n]


def whole(taken: Taken, answered: Answered) -> ChatCompletion | Completion:
    """The answer in one piece."""
    asked, replies = taken.asked, returned(answered, taken.asked.n or 1)
    head = {
        "created": int(time()),
        "model": asked.model,
        "usage": usage(answered, replies),
        "octavo": deliberation(answered),
    }
    if isinstance(asked, ChatRequest):
        chat = [
            ChatChoice(
                index=i,
                message=Spoken(content=reply.text),
                logprobs=None if asked.noted is None else ChatLogprobs.of(reply.pieces),
                finish_reason=reply.finish,
            )
            for i, reply in enumerate(replies)
        ]
        return ChatCompletion.model_validate(head | {"id": new_id(asked), "choices": chat})
    texts = [
        TextChoice(
            index=i,
            text=reply.text,
            logprobs=None if asked.noted is None else TextLogprobs.of(reply.pieces),
            finish_reason=reply.finish,
        )
        for i, reply in enumerate(replies)
    ]
    return Completion.model_validate(head | {"id": new_id(asked), "choices": texts})


def usage(answered: Answered, replies: list[Reply]) -> Usage:
    return Usage.of(answered.result.prompt_tokens, sum(reply.new_tokens for reply in replies))


def deliberation(answered: Answered) -> Deliberation:
    result, chosen = answered.result, answered.result.chosen
    return Deliberation(
        candidates=len(result.candidates),
        total_tokens=result.new_tokens,
        chosen_expert=chosen.expert,
        value=finite(chosen.value),
        degraded=result.degraded,
        reason=result.reason,
        seed=answered.seed,
        fallback=result.fallback,
    )


def new_id(asked: object) -> str:
    return f"{'chatcmpl' if isinstance(asked, ChatRequest) else 'cmpl'}-{uuid4().hex}"


def pieces(text: str) -> Iterator[str]:
    """A text word by word, for clients that show it as it comes."""
    yield from re.findall(r"\s*\S+\s*|\s+", text)


def finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and isfinite(value) else None
