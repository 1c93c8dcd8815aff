"""Where the inferences of a model may run: its lanes on several devices, and the rule that picks one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from octavo.runtime.core.query import Inference
from octavo.simulator.device import Device
from octavo.simulator.lane import Lane

Routing = Literal["round_robin", "least_work", "shortest_queue", "prefix_affine"]


@dataclass(slots=True)
class Berth:
    """A lane, and the device that it is on."""

    device: Device
    lane: Lane
    open: bool = True


@dataclass(slots=True)
class Station:
    """The berths of one model in one tier. Ties go to the first. Groups wait here while no berth is open."""

    model: str
    tier: str
    berths: list[Berth] = field(default_factory=list)
    routing: Routing = "least_work"
    waiting: list[tuple[list[Inference], bool]] = field(default_factory=list)
    _turn: int = 0

    def holds(self, group: Sequence[Inference]) -> bool:
        """Whether any berth, open or not, could ever hold a group that shares a prompt."""
        return any(berth.lane.takes(group[0]) for berth in self.berths)

    def obstacle(self, group: Sequence[Inference]) -> str:
        """Why no berth could ever hold a group."""
        if not self.berths:
            return f"no device has {self.model}"
        return f"on no device: {self.berths[0].lane.scheduler.obstacle(group[0])}"

    def pick(self, group: Sequence[Inference]) -> Berth | None:
        """The open berth for a group; None when there is none that could hold it."""
        able = [b for b in self.berths if b.open and b.lane.takes(group[0])]
        if len(able) < 2:
            return able[0] if able else None
        match self.routing:
            case "round_robin":
                self._turn += 1
                return able[(self._turn - 1) % len(able)]
            case "least_work":
                return min(able, key=lambda berth: berth.lane.load)
            case "shortest_queue":
                return min(able, key=lambda berth: berth.lane.queue)
            case "prefix_affine":
                return min(able, key=lambda berth: (-_resident(berth.lane, group[0]), berth.lane.load))


def _resident(lane: Lane, inference: Inference) -> int:
    """Leading chunks of the prompt that the lane's memory still holds."""
    return lane.scheduler.kv.cached_chunks(inference.query.prefix)[0]
