"""Deadlines: functions that are called after a time, unless they are dropped before."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from threading import Condition, Thread
from time import monotonic
from typing import Protocol

KEPT = 64  # dropped alarms that are not worth a new heap


class Alarm:
    """One call to be made; None once it was made or dropped."""

    __slots__ = ("at", "call", "number")

    def __init__(self, at: float, number: int, call: Callable[[], None]) -> None:
        self.at, self.number = at, number
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Alarm) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class Alarms(Protocol):
    """Calls functions after a time."""

    def set(self, seconds: float, call: Callable[[], None]) -> Alarm:
        """Call it once, so many seconds from now."""

    def drop(self, alarm: Alarm) -> None:
        """Do not call it, if it was not called yet, and keep nothing of it."""

    def close(self) -> None:
        """Nothing is called any more."""


class ClockAlarms:
    """In a thread of its own that begins with the first of them, and is woken only for one earlier than all others."""

    def __init__(self) -> None:
        self._now = monotonic
        self._heap: list[Alarm] = []
        self._dropped = 0
        self._number = count()
        self._changed = Condition()
        self._thread: Thread | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many are kept, dropped ones too."""
        return len(self._heap)

    def set(self, seconds: float, call: Callable[[], None]) -> Alarm:
        alarm = Alarm(self._now() + seconds, next(self._number), call)
        with self._changed:
            heapq.heappush(self._heap, alarm)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="octavo deadlines", daemon=True)
                self._thread.start()
            if self._heap[0] is alarm:
                self._changed.notify()
        return alarm

    def drop(self, alarm: Alarm) -> None:
        with self._changed:
            if alarm.call is None:
                return
            alarm.call = None
            self._dropped += 1
            if self._dropped > max(KEPT, len(self._heap) // 2):
                self._heap = [each for each in self._heap if each.call is not None]
                heapq.heapify(self._heap)
                self._dropped = 0

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            call()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                wait = self._heap[0].at - self._now() if self._heap else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                alarm = heapq.heappop(self._heap)
                if alarm.call is None:
                    self._dropped -= 1
                    continue
                call, alarm.call = alarm.call, None
                return call
            return None
