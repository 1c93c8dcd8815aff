"""The engine's contract: what the loop asks of whoever computes the steps of one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from octavo.runtime.core.query import Candidate, Lost, Score
from octavo.runtime.core.scheduler import Job, Limits, Step

Ended: TypeAlias = Candidate | Score | Lost


class Engine(Protocol):
    """Computes the steps of one model on one device, one at a time, in the thread of that device."""

    @property
    def limits(self) -> Limits:
        """What its memory holds; the scheduler's limits."""

    def remember(self, resident: Callable[[int], bool]) -> None:
        """Before a step that prefills: forget the KV of every prefix chunk that is not `resident` in the ledger."""

    def run(self, step: Step) -> list[Ended]:
        """Compute the step and return what ended in it: decoding rows in their order, then completed prompts' rows.

        Preempted jobs lose their memory first. An inference that fails alone comes back Lost; an exception means that
        the model is dead.
        """

    def withdraw(self, job: Job) -> None:
        """Free all that the job holds, between two steps, after the scheduler has forgotten it."""

    def close(self) -> None:
        """Give back memory; nothing is run afterwards."""
