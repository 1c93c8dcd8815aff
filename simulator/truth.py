"""What only the driver knows: how long each answer will be, whether it is right, and what a judge will say of it."""

from __future__ import annotations

from typing import Protocol

from octavo.runtime.core.query import Candidate, Inference, Query, Score


class Truth(Protocol):
    """Hidden from the council and the schedulers until it is reached."""

    def length(self, inference: Inference) -> int:
        """Tokens that the inference writes before it stops: up to its budget, at least one; none for a judge."""

    def result(self, inference: Inference, new_tokens: int) -> Candidate | Score:
        """What a finished inference brings."""

    def correct(self, candidate: Candidate) -> bool | None:
        """Whether the candidate is right, where that is known."""

    def seconds_to_verify(self, inference: Inference) -> float | None:
        """For a judge that runs beside all devices (a verifier on some CPU): how long; None for a model on a device."""


def left_to_write(total: int, inference: Inference) -> int:
    """Tokens until an inference stops whose whole answer has `total` tokens."""
    if inference.judges:
        return 0
    written = inference.continues.total_tokens if inference.continues else 0
    return max(1, min(inference.budget, total - written))


def key_of(inference: Inference) -> tuple[Query, str, int]:
    """Which answer the inference works on: a judge's is that of its candidate's expert."""
    expert = inference.judges.inference.model if inference.judges else inference.model
    return inference.query, expert, inference.sample
