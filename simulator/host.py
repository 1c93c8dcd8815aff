"""A host: the interpreter that the lanes of one process share, and that one thread at a time holds.

A step computes beside it, then takes it for what comes after. While other lanes run either takes longer, for whose data
the caches hold changes with every turn; that is measured. What a step waits for the host is not: it comes of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from octavo.profiles.latency import HostTimes, LatencyProfile
from octavo.runtime.core.scheduler import Step
from octavo.simulator.latency.table import Table


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

    def phases(
        self, step: Step, after: float = 0.0, rest: Sequence[float] = (0.0, 0.0), again: float = 1.0
    ) -> list[Phase]:
        """A step that decodes and prefills does one after the other; `after` are seconds on the host at its end.

        After a `rest` each part takes so much longer; `again`: how many times as long a mere decode computes.
        """
        phases = []
        if step.decodes:
            phases = [Phase(table.decode(step.decodes, step.context).seconds, holds) for table, holds in self._tables()]
        if step.chunks:
            before = [phase.seconds for phase in phases] or [0.0, 0.0]
            for (table, holds), first in zip(self._tables(), before, strict=True):
                phases.append(Phase(max(0.0, table.mixed(step.decodes, step.context, step.chunks) - first), holds))
        elif step.decodes:
            phases[0].seconds *= again
        for phase, longer in zip(phases, rest, strict=False):
            phase.seconds += longer
        phases[-1].seconds += after
        return phases

    def _tables(self) -> tuple[tuple[Table, bool], tuple[Table, bool]]:
        return (self.computing, False), (self.hosting, True)


class Host:
    """First come, first served; whoever holds it keeps it for as long as he wants, and who waited must wake first.

    `splits` are those of each lane by name, alone and beside others; `times` what else is known of it. Queries
    begin with so many `inferences` on the mean. Steps differ by a `seed`, where it is known how like ones do.
    """

    def __init__(
        self,
        splits: Mapping[str, tuple[Split, Split]],
        times: Mapping[str, HostTimes],
        first: HostTimes,
        inferences: float,
        seed: int = 0,
    ) -> None:
        self.post = first.post
        self._opening = first.arrival + inferences * first.start
        self._free = 0.0
        self._handover = first.handover
        self._splits = splits
        self._times = times
        self._running: set[str] = set()
        self._random = Random(seed)

    def take(self, now: float, lasts: Callable[[float], float]) -> float:
        """Hold it as soon as it is free, for as long as is said of when that begins; returns until when."""
        begin = now if now >= self._free else self._free + self._handover
        self._free = begin + lasts(begin)
        return self._free

    def open(self, now: float) -> float:
        """A query is opened, and has arrived when somebody has taken the host for it; returns until when."""
        self._free = max(self._free, now) + self._opening
        return now + self._opening

    def begin(self, device: str, lane: str, step: Step, results: int, *, rested: bool, again: bool) -> list[Phase]:
        """A step begins, at whose end there are so many results; returns its phases.

        `rested`: the device had nothing to do; `again`: the lane took its last step too.
        """
        self._running.add(device)
        split, times = self._splits[lane][len(self._running) > 1], self._times[lane]
        longer = times.rest if rested else (0.0, 0.0)
        phases = split.phases(step, results * times.result, longer, times.again if again else 1.0)
        if pairs := times.prefills if step.chunks else times.decodes:
            pair = pairs[int(self._random.random() * len(pairs))]
            for phase in phases:
                phase.seconds *= pair[phase.holds]
        return phases

    def leave(self, device: str) -> None:
        """The step has ended."""
        self._running.discard(device)
