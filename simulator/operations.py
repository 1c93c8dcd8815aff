"""What happens to replicas: failures, spot pre-emption, outages, maintenance, and autoscaling.

A replica that goes away loses all that it holds; what it was doing starts again elsewhere, or is lost. Every kind of
event has its own random stream, drawn per replica.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from octavo.profiles.fleet import Autoscale, Failures, Outage, Placement
from octavo.profiles.scenario import Scenario
from octavo.simulator.fleet import Fleet, Unit, weight_bytes
from octavo.simulator.streams import Streams
from octavo.simulator.world import World

BOOT = 60.0
"""Seconds until a new machine can load weights, where the scenario does not say how long a cold start takes."""


@dataclass(eq=False, slots=True)
class Presence:
    """How long a replica has been there and paid for; it is away for as many reasons as `away` says."""

    since: float | None
    seconds: float = 0.0
    away: int = 0
    leaving: bool = False

    def pause(self, now: float) -> None:
        if self.since is not None:
            self.seconds += now - self.since
            self.since = None

    def resume(self, now: float) -> None:
        if self.since is None:
            self.since = now


@dataclass(slots=True)
class Operations:
    """Drives one run's events. `counts` says how many of each kind came."""

    scenario: Scenario
    world: World
    fleet: Fleet
    streams: Streams
    counts: dict[str, int] = field(default_factory=dict)
    presence: dict[Unit, Presence] = field(default_factory=dict)
    _random: dict[str, np.random.Generator] = field(default_factory=dict)

    def begin(self) -> None:
        """Plan what is known at the start."""
        facts = self.scenario.fleet.operations
        self._random = {"failures": self.streams.of("failures"), "spot": self.streams.of("spot")}
        for unit in self.fleet.units:
            self._arrive(unit)
        for outage in facts.outages:
            self.world.at(outage.at, lambda outage=outage: self._outage(outage))  # type: ignore[misc]
        if facts.maintenance:
            self._plan_maintenance()
        if facts.autoscale:
            self._begin_scaling(facts.autoscale)

    def device_seconds(self, end: float) -> dict[tuple[str, str], float]:
        """Of the replicas that were there, per tier and hardware."""
        found: dict[tuple[str, str], float] = {}
        for unit, here in self.presence.items():
            since = end if here.since is None else min(here.since, end)
            key = unit.placement.tier, unit.placement.hardware
            found[key] = found.get(key, 0.0) + (here.seconds + end - since) * unit.placement.devices
        return found

    # Going away and coming back.

    def _arrive(self, unit: Unit) -> None:
        facts, tier = self.scenario.fleet.operations, self.scenario.fleet.tiers[unit.placement.tier]
        self.presence[unit] = Presence(self.world.now)
        if facts.failures:
            self._expect("failures", facts.failures, unit, paid=True)
        if facts.spot_preemption and tier.basis == "spot":
            self._expect("spot", facts.spot_preemption, unit, paid=False)

    def _expect(self, kind: str, facts: Failures, unit: Unit, *, paid: bool) -> None:
        """The next event of a replica: any of its devices stops all of it."""
        random = self._random[kind]
        wait = float(random.exponential(facts.mtbf / unit.placement.devices))
        lasts = float(random.exponential(facts.mttr))

        def happens() -> None:
            if not self.presence[unit].leaving:
                self._away(unit, lasts, kind, paid=paid, then=lambda: self._expect(kind, facts, unit, paid=paid))

        self.world.at(self.world.now + wait, happens)

    def _away(self, unit: Unit, lasts: float, kind: str, *, paid: bool, then: Callable[[], None] | None = None) -> None:
        facts, here = self.scenario.fleet.operations, self.presence[unit]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        here.away += 1
        if not paid:
            here.pause(self.world.now)
        retries = facts.retries if facts.on_failure == "retry" else 0
        for device in unit.devices:
            self.world.kill(device, retries, f"{device.name} went away ({kind})")

        def back() -> None:
            here.away -= 1
            if not here.away and not here.leaving:
                here.resume(self.world.now)
                for device in unit.devices:
                    self.world.open_berths(device)
            if then:
                then()

        self.world.at(self.world.now + lasts, back)

    def _outage(self, outage: Outage) -> None:
        """So many devices of a tier, whole replicas at a time; without a number, all of it."""
        left = outage.devices
        for unit in self.fleet.units:
            if unit.placement.tier == outage.tier and not self.presence[unit].leaving and (left is None or left > 0):
                self._away(unit, outage.lasts, "outages", paid=True)
                left = None if left is None else left - unit.placement.devices

    def _plan_maintenance(self) -> None:
        """Replicas in turn, evenly over the interval."""
        facts = self.scenario.fleet.operations.maintenance
        assert facts
        for number, unit in enumerate(self.fleet.units):
            start = facts.every * (number + 1) / len(self.fleet.units)
            self.world.at(start, lambda unit=unit: self._drain(unit))  # type: ignore[misc]

    def _drain(self, unit: Unit) -> None:
        facts = self.scenario.fleet.operations.maintenance
        assert facts
        for device in unit.devices:
            self.world.close_berths(device)
        again = self.world.now + facts.every

        def away() -> None:
            self._away(unit, facts.lasts, "maintenance", paid=True)

        self.world.at(self.world.now + facts.drain, away)
        self.world.at(again, lambda: self._drain(unit))

    # Autoscaling.

    def _begin_scaling(self, facts: Autoscale) -> None:
        for key in dict.fromkeys((unit.index, unit.names) for unit in self.fleet.units):
            group = self._group(key)
            for _ in range(facts.min - len(group)):
                self._arrive(self.fleet.add(group[0].placement, *key))
                self.world.add(self.fleet.units[-1].devices)
            self.world.at(facts.interval, lambda key=key: self._scale(key))  # type: ignore[misc]

    def _group(self, key: tuple[int, tuple[str, ...]]) -> list[Unit]:
        """The replicas of one placement that hold the same and are not leaving."""
        return [
            unit
            for unit in self.fleet.units
            if (unit.index, unit.names) == key and not (unit in self.presence and self.presence[unit].leaving)
        ]

    def _scale(self, key: tuple[int, tuple[str, ...]]) -> None:
        """As many replicas as bring their mean load to the target."""
        facts = self.scenario.fleet.operations.autoscale
        assert facts
        group = self._group(key)
        self.world.catch_up(device for unit in group for device in unit.devices)
        wanted = ceil(sum(map(load, group)) / facts.target - 1e-9)
        wanted = min(max(wanted, facts.min), facts.max)
        for _ in range(wanted - len(group)):
            self._start(group[0].placement, key, facts)
        for unit in group[: len(group) - wanted if wanted < len(group) else 0][:1]:
            self._retire(unit)
        self.world.at(self.world.now + facts.interval, lambda: self._scale(key))

    def _start(self, placement: Placement, key: tuple[int, tuple[str, ...]], facts: Autoscale) -> None:
        unit = self.fleet.add(placement, *key, is_open=False)
        self.counts["started"] = self.counts.get("started", 0) + 1
        self._arrive(unit)
        self.world.add(unit.devices)

        def ready() -> None:
            if not self.presence[unit].leaving and not self.presence[unit].away:
                for device in unit.devices:
                    self.world.open_berths(device)

        self.world.at(self.world.now + self._cold_start(unit, facts), ready)

    def _cold_start(self, unit: Unit, facts: Autoscale) -> float:
        if facts.cold_start is not None:
            return facts.cold_start
        bandwidth = self.scenario.hardware_of(unit.placement).host_bandwidth * unit.placement.devices
        return BOOT + weight_bytes(self.scenario, unit.placement, unit.names) / bandwidth

    def _retire(self, unit: Unit) -> None:
        """Take no new work, and leave when all is done."""
        self.presence[unit].leaving = True
        self.counts["retired"] = self.counts.get("retired", 0) + 1
        for device in unit.devices:
            self.world.close_berths(device)
        self._leave(unit)

    def _leave(self, unit: Unit) -> None:
        if unit.idle:
            self.presence[unit].pause(self.world.now)
        else:
            facts = self.scenario.fleet.operations.autoscale
            assert facts
            self.world.at(self.world.now + facts.interval / 4, lambda: self._leave(unit))


def load(unit: Unit) -> float:
    """How full a replica is, queue included: of its rows, or of its KV memory, whichever is nearer to its limit."""
    lanes = [lane for device in unit.devices for lane in device.lanes]
    rows = sum(lane.queue for lane in lanes) / sum(lane.scheduler.limits.max_rows for lane in lanes)
    kv = sum(lane.scheduler.kv.used for lane in lanes) / sum(lane.scheduler.kv.capacity for lane in lanes)
    return max(rows, kv)
