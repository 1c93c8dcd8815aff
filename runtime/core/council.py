"""The council: runs the deliberations of all open queries and keeps the books of who was asked and what came back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from octavo.runtime.core.policies import Deliberation, Policy
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


@dataclass(slots=True, eq=False, init=False)
class Motion:
    """What the council wants done: inferences to start, inferences to withdraw, perhaps a query closed.

    A closed query has an answer or the reason why there is none.
    """

    start: Final[list[Inference]]
    withdraw: Final[tuple[Inference, ...]]
    answer: Final[Answer | None]
    failure: Final[str | None]

    def __init__(
        self,
        start: list[Inference] | None = None,
        withdraw: tuple[Inference, ...] = (),
        answer: Answer | None = None,
        failure: str | None = None,
    ) -> None:
        self.start = start or []
        self.withdraw = withdraw
        self.answer = answer
        self.failure = failure

    @property
    def closes(self) -> bool:
        return self.answer is not None or self.failure is not None


NOTHING = Motion()


class _Open:
    __slots__ = ("deliberation", "running")

    def __init__(self, deliberation: Deliberation) -> None:
        self.deliberation = deliberation
        self.running: dict[Inference, None] = {}


@dataclass(slots=True)
class Books:
    """Counts that must balance: asked = answered + failed + open, started = finished + lost + withdrawn + running."""

    asked: int = 0
    answered: int = 0
    failed: int = 0
    started: int = 0
    finished: int = 0
    lost: int = 0
    withdrawn: int = 0


class Council:
    """Holds every open query's deliberation; told of results, it answers with motions. Knows no clock and no device."""

    def __init__(self, ensemble: Ensemble, policy: Policy) -> None:
        self.ensemble = ensemble
        self.policy = policy
        self.books = Books()
        self._open: dict[Query, _Open] = {}

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def running(self) -> int:
        """Inferences started that have neither come back nor been withdrawn."""
        return sum(len(case.running) for case in self._open.values())

    def ask(self, query: Query, policy: Policy | None = None) -> Motion:
        """Open a query under the council's policy or one of its own. Raises TypeError where that is no generator."""
        deliberation = (policy or self.policy)(self.ensemble, query)
        if not hasattr(deliberation, "send"):
            raise TypeError(f"a policy is a generator, not a function that gives a {type(deliberation).__name__}")
        case = _Open(deliberation)
        self._open[query] = case
        self.books.asked += 1
        return self._advance(query, case, None)

    def hear(self, result: Candidate | Score | Lost) -> Motion:
        """Pass on what came back. A result of a query already closed, or of an inference withdrawn, changes nothing."""
        inference = _inference_of(result)
        case = self._open.get(inference.query)
        if case is None or inference not in case.running:
            return NOTHING
        del case.running[inference]
        if isinstance(result, Lost):
            self.books.lost += 1
        else:
            self.books.finished += 1
        return self._advance(inference.query, case, result)

    def expire(self, query: Query) -> Motion:
        """The query's deadline has come."""
        case = self._open.get(query)
        return self._advance(query, case, Expired(query)) if case else NOTHING

    def cancel(self, query: Query, reason: str = "cancelled") -> Motion:
        """Whoever asked no longer wants the answer."""
        case = self._open.get(query)
        if case is None:
            return NOTHING
        case.deliberation.close()
        return self._close(query, case, None, reason)

    def _advance(self, query: Query, case: _Open, result: Result | None) -> Motion:
        try:
            start = next(case.deliberation) if result is None else case.deliberation.send(result)
        except StopIteration as stop:
            return self._close(query, case, stop.value, None)
        except NoAnswer as reason:
            return self._close(query, case, None, str(reason))
        self.books.started += len(start)
        for inference in start:
            case.running[inference] = None
        if not case.running:  # it would never be told of anything again
            case.deliberation.close()
            return self._close(query, case, None, "its policy waits, and nothing runs")
        return Motion(start=start) if start else NOTHING

    def _close(self, query: Query, case: _Open, answer: Answer | None, failure: str | None) -> Motion:
        del self._open[query]
        withdrawn = tuple(case.running)
        self.books.withdrawn += len(withdrawn)
        self.books.answered += answer is not None
        self.books.failed += answer is None
        return Motion(withdraw=withdrawn, answer=answer, failure=failure)


def _inference_of(result: Candidate | Score | Lost) -> Inference:
    if isinstance(result, Score):
        return result.judge or result.candidate.inference
    return result.inference
