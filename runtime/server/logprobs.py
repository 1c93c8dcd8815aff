"""Log-probabilities in OpenAI's two shapes: one object per token in chats, parallel lists in completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel

from octavo.runtime.pieces import Piece


class Likely(BaseModel):
    """A token: what a reader sees, its bytes, and the natural logarithm of its probability."""

    token: str
    bytes: list[int]
    logprob: float


class Chosen(Likely):
    """A token of the answer, with the likeliest tokens in its place."""

    top_logprobs: list[Likely]


class ChatLogprobs(BaseModel):
    content: list[Chosen]
    refusal: None = None

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Self:
        chosen = [
            Chosen(**_likely(piece).model_dump(), top_logprobs=[_likely(each) for each in piece.likely])
            for piece in pieces
        ]
        return cls(content=chosen)


class TextLogprobs(BaseModel):
    """Of tokens that begin `text_offset` characters after the begin of the text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]

    @classmethod
    def of(cls, pieces: Sequence[Piece], before: int = 0) -> Self:
        """`before` are the characters of the answer that stand before these pieces."""
        offsets = [before + sum(len(piece.text) for piece in pieces[:place]) for place in range(len(pieces))]
        return cls(
            tokens=[piece.text for piece in pieces],
            token_logprobs=[piece.logprob for piece in pieces],
            top_logprobs=[_by_text(piece) for piece in pieces],
            text_offset=offsets,
        )


def _likely(piece: Piece) -> Likely:
    return Likely(token=piece.text, bytes=list(piece.bytes), logprob=piece.logprob)


def _by_text(piece: Piece) -> dict[str, float]:
    """The token of the answer is always among them; where two others read the same, the likelier one counts."""
    return {each.text: each.logprob for each in reversed(piece.likely)} | {piece.text: piece.logprob}
