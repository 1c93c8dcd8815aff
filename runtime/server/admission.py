"""How much work is taken on: candidates and tokens of open queries, bounded; more is refused at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import monotonic

from octavo.runtime.server.refusals import Refusal
from octavo.runtime.server.settings import ServerSettings

SMOOTHING = 0.2  # weight of the latest query in the expected time of one


@dataclass(slots=True)
class Place:
    """What one query holds, until it is left, once."""

    candidates: int
    since: float
    tokens: int = 0
    left: bool = False


class Admission:
    """Counts what is open. Used from the event loop only."""

    def __init__(self, settings: ServerSettings, clock: Callable[[], float] = monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._seconds = 1.0
        self.candidates = 0
        self.tokens = 0
        self.queries = 0
        self.draining = False

    def enter(self, candidates: int) -> Place:
        """Take a place before the prompt is read. Raises Refusal."""
        if self.draining:
            raise Refusal(503, "the server is shutting down", code="draining", headers={"Retry-After": "1"})
        bound = self._settings.max_num_queued_reqs
        if candidates > bound:
            raise Refusal(400, f"{candidates} candidates are more than this server ever queues ({bound})")
        if self.candidates + candidates > bound:
            raise self._full("candidates")
        self.candidates += candidates
        self.queries += 1
        return Place(candidates, self._clock())

    def widen(self, place: Place, tokens: int) -> None:
        """Count the tokens too, now that they are known. Raises Refusal; the place is then still to be left."""
        bound = self._settings.max_num_queued_tokens
        if tokens > bound:
            raise Refusal(400, f"{tokens} tokens for all candidates are more than this server ever queues ({bound})")
        if self.tokens + tokens > bound:
            raise self._full("tokens")
        place.tokens = tokens
        self.tokens += tokens

    def leave(self, place: Place, *, answered: bool = False) -> None:
        """Give the place back; only the first time counts."""
        if place.left:
            return
        place.left = True
        self.candidates -= place.candidates
        self.tokens -= place.tokens
        self.queries -= 1
        if answered:
            self._seconds += SMOOTHING * (self._clock() - place.since - self._seconds)

    def _full(self, of_what: str) -> Refusal:
        wait = str(max(1, ceil(self._seconds)))
        message = f"the queue is full of {of_what}; try again in {wait} s"
        return Refusal(429, message, code="queue_full", headers={"Retry-After": wait})
