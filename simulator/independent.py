"""The fast path: where nothing that a device does changes what another is asked, each runs alone and is joined later.

The same world, council, lanes and rules; only the clock is different. Devices go forward one after the other up to a
common horizon, which is when the next queries come, and what ended on them is heard in order of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from itertools import islice
from math import inf
from operator import itemgetter

from octavo.profiles.policy import BestOfN, EnsemblePolicy, Majority, MeanLogprob, SinglePolicy, WeightedVote
from octavo.profiles.scenario import Scenario
from octavo.profiles.workload import ClosedLoop
from octavo.runtime.core.query import Inference, Query
from octavo.runtime.core.trace import QueryRecord
from octavo.simulator.device import Device
from octavo.simulator.lane import Lane, Leap
from octavo.simulator.panel import VALUE
from octavo.simulator.station import Station
from octavo.simulator.world import Ask, World

AT_ONCE = 128
"""Queries that are asked before the devices go on; what is open at a time should stay in the caches."""


def is_independent(scenario: Scenario, stations: Mapping[str, Station]) -> bool:
    """Whether devices can be simulated apart: nothing is withdrawn, routed by load, or in another tier or shared."""
    if not isinstance(
        scenario.ensemble.policy, EnsemblePolicy | SinglePolicy | BestOfN | Majority | MeanLogprob | WeightedVote
    ):
        return False
    operations = scenario.fleet.operations
    moving = operations.failures, operations.spot_preemption, operations.autoscale, operations.maintenance
    if any(moving) or operations.outages or scenario.ensemble.deadline is not None:
        return False
    if isinstance(scenario.workload.arrivals, ClosedLoop) or len({s.tier for s in stations.values()}) > 1:
        return False
    judging = {berth.device for s in stations.values() if s.model == VALUE for berth in s.berths}
    asked = {berth.device for s in stations.values() if s.model != VALUE for berth in s.berths}
    routed = any(len(s.berths) > 1 and s.routing != "round_robin" for s in stations.values())
    return not routed and not judging & asked


class Mail:
    """Groups on their way to a device, in order of time; `next` is when the first of them is there."""

    __slots__ = ("_groups", "_read", "next")

    def __init__(self) -> None:
        self.next = inf
        self._groups: list[tuple[float, Lane, list[Inference]]] = []
        self._read = 0

    def post(self, there: float, lane: Lane, group: list[Inference]) -> None:
        if self.next == inf:
            self.next = there
        self._groups.append((there, lane, group))

    def open(self, now: float) -> None:
        """Queue what is there by now."""
        groups, read = self._groups, self._read
        while self.next <= now:
            _, lane, group = groups[read]
            lane.scheduler.submit(group)
            read += 1
            self.next = groups[read][0] if read < len(groups) else inf
        if self.next == inf:
            groups.clear()
            read = 0
        self._read = read


class Independent(World):
    """A world whose devices are driven one by one."""

    time = 0.0

    def set_up(self) -> None:
        self._coming: list[tuple[float, int, Query, QueryRecord]] = []
        self._mail = {device: Mail() for device in self.devices}
        self._ended: list[tuple[float, Leap]] = []

    @property
    def now(self) -> float:
        return self.time

    def run(self) -> None:
        """Queries by the thousand: ask them, let every device go on until the next come, hear what ended."""
        horizon = 0.0
        while horizon < inf:
            horizon = self._ask_some()
            self._open_until(horizon)
            while self._advance(horizon):
                self._hear_all()

    def _ask_some(self) -> float:
        """Returns the time before which nobody else will ask."""
        for ask in islice(self._everybody(), AT_ONCE):
            self.time = ask.at
            self.ask(ask)
        return self._next.at if self._next else inf

    def _everybody(self) -> Iterator[Ask]:
        while self._next is not None:
            ask, self._next = self._next, next(self._asks, None)
            yield ask

    def _reach(self, there: float, query: Query, record: QueryRecord) -> None:
        heappush(self._coming, (there, len(self.queries), query, record))

    def _open_until(self, horizon: float) -> None:
        """Queries reach the council in the order in which their messages do."""
        while self._coming and self._coming[0][0] < horizon:
            self.time, _, query, record = heappop(self._coming)
            self._open_case(query, record)

    def _send(self, there: float, group: list[Inference], station: Station, arrival: bool) -> None:
        berth = station.pick(group)
        if berth is None:
            self.time, before = there, self.time
            self._lose(group, station.obstacle(group))
            self.time = before
            return
        for inference in group:
            run = self._runs[inference]
            run.berth = berth
            run.record.device = berth.device.name
        self._mail[berth.device].post(there, berth.lane, group)

    def _advance(self, horizon: float) -> bool:
        """Let every device go on; True when one of them did."""
        moved = [self._advance_one(device, horizon) for device in self.devices]
        return any(moved)

    def _advance_one(self, device: Device, horizon: float) -> bool:
        """Up to the first end of a step at or after the horizon."""
        mail, moved = self._mail[device], False
        while True:
            coming = mail.next if mail.next < inf else horizon
            if device.idle:
                if coming >= horizon:
                    return moved
                now = coming if coming > device.time else device.time
            else:
                now = device.end
                if coming < now:
                    device.look_up(coming)
                    now = device.end
                if now >= horizon:
                    return moved
                leap = device.finish()
                if leap is not None and (leap.admitted or leap.began or leap.stopped or leap.step.preempted):
                    self._ended.append((now, leap))
            moved = True
            mail.open(now)
            device.begin(now)

    def _hear_all(self) -> None:
        """Tell the council what ended, in order of time. Judges begin where it wants them to."""
        for now, leap in sorted(self._ended, key=itemgetter(0)):
            self.time = now
            self._hear(leap)
        self._ended.clear()
