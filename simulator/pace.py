"""The pace of devices: from moment to moment steps take more or fewer times their usual seconds, as was measured.

What was measured comes again in blocks from random places (the circular block bootstrap of Politis and Romano, 1992):
slow moments come together as they did, and runs of different seeds differ by what the machine does meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octavo.profiles.latency import Pace

BLOCK = 4.0
"""Seconds; longer than a machine keeps one pace, shorter than a measurement."""
STEADY = 1.1
"""Between the fast and the slow twentieth of the time; less is not worth a word."""

Seed = int | np.random.SeedSequence | None


class Course:
    """Which measured moment comes when, the same for all lanes of a machine. Without a seed, as they were measured."""

    def __init__(self, pace: Pace, seed: Seed) -> None:
        self.seconds = pace.seconds
        self.lanes = pace.lanes
        self._rng = None if seed is None else np.random.default_rng(seed)
        self._places: list[int] = []

    def place(self, moment: int) -> int:
        """Of the measured moment that comes as the `moment`-th."""
        count, places = len(self.lanes[0]), self._places
        while len(places) <= moment:
            if self._rng is None:
                places += range(count)
            else:
                first = int(self._rng.integers(count))
                places += [(first + i) % count for i in range(min(count, max(1, round(BLOCK / self.seconds))))]
        return places[moment]

    def of(self, number: int) -> Paced:
        """The pace of a device."""
        return Paced(self, self.lanes[number % len(self.lanes)])


class Paced:
    """Turns usual seconds into those that pass on a device, and back."""

    def __init__(self, course: Course, lane: Sequence[float]) -> None:
        self._course = course
        self._lane = lane

    def lasts(self, now: float, usual: float) -> float:
        """Seconds that pass until work is done that usually takes so long."""
        width, then = self._course.seconds, now
        moment = int(now / width)
        while True:
            pace, end = self._lane[self._course.place(moment)], (moment + 1) * width
            if usual * pace <= end - then:
                return then - now + usual * pace
            usual -= (end - then) / pace
            then, moment = end, moment + 1

    def done(self, now: float, until: float) -> float:
        """Usual seconds of the work that is done meanwhile."""
        width, usual = self._course.seconds, 0.0
        moment = int(now / width)
        while (end := (moment + 1) * width) < until:
            usual += (end - now) / self._lane[self._course.place(moment)]
            now, moment = end, moment + 1
        return usual + (until - now) / self._lane[self._course.place(moment)]


def said(pace: Pace | None) -> str | None:
    """How it swung, in words; None where it was steady."""
    if pace is None:
        return None
    fast, slow = np.percentile(pace.lanes, [5, 95])
    if slow < STEADY * fast:
        return None
    return f"the machine's pace swung while it was measured, its steps by x{fast:.2f} to x{slow:.2f}; so it does here"
