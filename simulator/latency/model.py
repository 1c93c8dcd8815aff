"""What a latency model answers, and the time of many decode steps in a row from it.

Between two changes of a batch a decode step differs from the one before only by one more token of context per row. Its
time is linear in that context, or piecewise linear, so the time of k steps is a sum of arithmetic series, and the step
in which a moment lands is the root of a quadratic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, inf, sqrt
from typing import Final, NamedTuple, Protocol

from octavo.runtime.core.scheduler import Chunk


class Line:
    """Seconds of a decode step, seconds more per KV token read, and up to how much context that holds."""

    __slots__ = ("seconds", "slope", "until")

    def __init__(self, seconds: float, slope: float, until: float = inf) -> None:
        self.seconds: Final = seconds
        self.slope: Final = slope
        self.until: Final = until


class Band(NamedTuple):
    """By what shares steps may be shorter, and longer, than estimated: nine in ten of what was seen elsewhere were not
    more so."""

    shorter: float = 0.0
    longer: float = 0.0

    def __str__(self) -> str:
        if self.shorter == self.longer:
            return f"+-{self.longer:.0%}"
        return f"-{self.shorter:.0%} to +{self.longer:.0%}"

    @staticmethod
    def widest(bands: Iterable[Band]) -> Band:
        """Of several models in one run."""
        found = list(bands)
        return Band(max(band.shorter for band in found), max(band.longer for band in found))


EXACT = Band()


class LatencyModel(Protocol):
    """Seconds of a step of one model on one device (or on the devices of one replica)."""

    @property
    def label(self) -> str:
        """Which kind of model this is, and of what: for reports."""

    @property
    def band(self) -> Band:
        """How far off a step's time may be."""

    def decode(self, rows: int, context: int) -> Line:
        """A step of `rows` decoding rows that read `context` KV tokens in all.

        Strictly positive, and no shorter for more context; continuous where one line ends and the next begins.
        """

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        """Seconds of a step that prefills chunks beside `rows` decoding rows; no shorter for a larger step."""


def leap_seconds(model: LatencyModel, rows: int, context: int, repeats: int) -> float:
    """Seconds of `repeats` decode steps in a row, of which the first reads `context` tokens."""
    total = 0.0
    while True:
        line = model.decode(rows, context)
        steps = _steps_on(line, rows, context, repeats)
        total += _series(line, rows, steps)
        repeats -= steps
        if not repeats:
            return total
        context += steps * rows


def leap_steps(model: LatencyModel, rows: int, context: int, repeats: int, elapsed: float) -> tuple[int, float]:
    """The fewest of `repeats` steps that take at least `elapsed` seconds (at least one), and how long those take."""
    done = 0
    total = 0.0
    while True:
        line = model.decode(rows, context)
        steps = _steps_on(line, rows, context, repeats - done)
        wanted = max(_root(line, rows, elapsed - total), not done)
        if wanted <= steps or done + steps == repeats:
            steps = min(wanted, steps)
            return done + steps, total + _series(line, rows, steps)
        total += _series(line, rows, steps)
        done += steps
        context += steps * rows


def _steps_on(line: Line, rows: int, context: int, most: int) -> int:
    """How many of the next steps lie on the line."""
    if line.until == inf:
        return most
    return min(most, max(1, ceil((line.until - context) / rows)))


def _series(line: Line, rows: int, steps: int) -> float:
    return steps * line.seconds + line.slope * rows * (steps * (steps - 1) // 2)


def _root(line: Line, rows: int, elapsed: float) -> int:
    """The fewest steps on the line that take at least so long."""
    if elapsed <= 0:
        return 0
    half = line.slope * rows / 2
    linear = line.seconds - half
    if half * elapsed <= 1e-12 * linear * linear:
        steps = ceil(elapsed / line.seconds)
    else:
        steps = ceil((sqrt(linear * linear + 4 * half * elapsed) - linear) / (2 * half))
    while steps > 1 and _series(line, rows, steps - 1) >= elapsed:
        steps -= 1
    while _series(line, rows, steps) < elapsed:
        steps += 1
    return steps
