"""The account of one request: how it ended, told once to the log and to the metrics."""

from __future__ import annotations

from time import monotonic

from octavo.runtime.server.answers import deliberation
from octavo.runtime.server.desk import Answered, Asked
from octavo.runtime.server.journal import log
from octavo.runtime.server.metrics import Metrics
from octavo.runtime.server.refusals import SHOWN, Refusal

GONE = 499  # nobody reads it; the log does


class Account:
    """Begun when a request arrives; the first ending that it is told is the one that counts."""

    def __init__(self, metrics: Metrics, path: str) -> None:
        self._metrics = metrics
        self._path = path
        self._start = monotonic()
        self._first: float | None = None
        self._asked: Asked | None = None
        self._over = False

    @property
    def seconds(self) -> float:
        return monotonic() - self._start

    def read(self, asked: Asked) -> None:
        """The request is well-formed."""
        self._asked = asked

    def first_text(self) -> None:
        """The first text of the answer is there; only the first time counts."""
        if self._first is None:
            self._first = self.seconds
            self._metrics.first.observe(self._first)

    def answered(self, answered: Answered) -> None:
        if self._ends():
            self.first_text()
            choices = (self._asked and self._asked.n) or 1
            self._metrics.answered(self.seconds, choices, answered)
            engine = round(answered.result.seconds, 6)
            self._log(200, first_text=self._first, engine_seconds=engine, **deliberation(answered).model_dump())

    def refused(self, refusal: Refusal) -> None:
        if self._ends():
            self._metrics.ended("failed" if refusal.status >= 500 else "rejected")
            self._log(refusal.status, code=refusal.problem.code, reason=str(refusal))

    def gone(self) -> None:
        """The client has left before the answer."""
        if self._ends():
            self._metrics.ended("cancelled")
            self._log(GONE)

    def _ends(self) -> bool:
        first, self._over = not self._over, True
        return first

    def _log(self, status: int, **fields: object) -> None:
        model = self._asked.model[:SHOWN] if self._asked else None
        log("request", path=self._path, model=model, status=status, seconds=round(self.seconds, 6), **fields)
