"""A host: the interpreter that the lanes of one process share, and that one thread at a time holds.

A step computes beside it, then takes it for what comes after. While other lanes run either takes longer, for whose data
the caches hold changes with every turn; that is measured. What a step waits for the host is not: it comes of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from octavo.profiles.latency import HostTimes, LatencyProfile
from octavo.runtime.core.scheduler import Step
from octavo.simulator.latency.table import Table

Pace = Callable[[str, float], float]


class Phase:
    """A part of a step that goes on for so many seconds, holding the host or not."""

    __slots__ = ("holds", "seconds")

    def __init__(self, seconds: float, holds: bool) -> None:
        self.seconds = seconds
        self.holds = holds


@dataclass(frozen=True, slots=True)
class Split:
    """Seconds that a step computes, and that it holds the host."""

    computing: Table
    hosting: Table

    @staticmethod
    def of(profile: LatencyProfile, side: str) -> Split | None:
        """While a lane is `alone`, or `beside` others; None where the profile does not say."""
        kept = [step for step in profile.steps if step.alone and step.beside]
        if not kept:
            return None

        def table(part: str) -> Table:
            steps = [step.model_copy(update={"seconds": getattr(getattr(step, side), part)}) for step in kept]
            return Table(profile.model_copy(update={"steps": steps, "step_overhead": 0.0}))

        return Split(table("computing"), table("hosting"))

    def phases(self, step: Step, after: float) -> list[Phase]:
        """A step that decodes and prefills does one after the other; `after` are seconds on the host at its end."""
        phases = []
        if step.decodes:
            phases = [Phase(table.decode(step.decodes, step.context).seconds, holds) for table, holds in self._tables()]
        if step.chunks:
            before = [phase.seconds for phase in phases] or [0.0, 0.0]
            for (table, holds), first in zip(self._tables(), before, strict=True):
                phases.append(Phase(max(0.0, table.mixed(step.decodes, step.context, step.chunks) - first), holds))
        phases[-1].seconds += after
        return phases

    def _tables(self) -> tuple[tuple[Table, bool], tuple[Table, bool]]:
        return (self.computing, False), (self.hosting, True)


class Host:
    """First come, first served, and whoever holds it keeps it for as long as he wants.

    `splits` are those of each lane by name, alone and beside others, and `results` its seconds for each result.
    `pace` says how many times as long a step of a device takes that begins at a time.
    """

    def __init__(
        self,
        splits: Mapping[str, tuple[Split, Split]],
        results: Mapping[str, float],
        times: HostTimes,
        pace: Pace = lambda device, now: 1.0,
    ) -> None:
        self.times = times
        self._pace = pace
        self._splits = splits
        self._results = results
        self._running: set[str] = set()
        self._free = 0.0

    def take(self, now: float, seconds: float) -> float:
        """Hold it for so long, as soon as it is free; returns until when."""
        self._free = max(self._free, now) + seconds
        return self._free

    def begin(self, device: str, now: float, lane: str, step: Step, results: int) -> list[Phase]:
        """A step begins, at whose end there are so many results; returns its phases."""
        self._running.add(device)
        split, pace = self._splits[lane][len(self._running) > 1], self._pace(device, now)
        phases = split.phases(step, results * self._results[lane])
        for phase in phases:
            phase.seconds *= pace
        return phases

    def leave(self, device: str) -> None:
        """The step has ended."""
        self._running.discard(device)
