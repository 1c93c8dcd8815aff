"""The pace of a machine's lanes: how many times as long as on the mean their steps take, from moment to moment.

A virtual core shares a physical one with somebody else's, clocks go up and down with heat: steps are slow together, and
fast together, for seconds. No single step shows that, and the mean of many hides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from octavo.profiles.latency import Pace

if TYPE_CHECKING:
    from octavo.runtime.steps import Timed

Floats = NDArray[np.float64]
Clock = Literal["seconds", "spent"]  # of the wall, or of the lane's thread
MOMENT = 0.2  # seconds, or a few steps where those are long
STEPS = 4
INERTIA = 0.02  # of a moment: so much work at the pace of the moment before counts with its own
PASSES = 4


def moment(taken: Floats) -> float:
    """How long the pace counts as constant, where steps take so long."""
    return max(MOMENT, STEPS * float(np.mean(taken))) if len(taken) else MOMENT


def course(lane: NDArray[np.int64], begun: Floats, taken: Floats, usual: Floats, lanes: int, width: float) -> Floats:
    """Of each lane and moment, what steps took over what they usually take; where none began, as just before."""
    places = ((begun - begun.min()) / width).astype(int)
    shape = lanes, int(places.max()) + 1
    sums = np.zeros((2, *shape))
    for total, values in zip(sums, (taken, usual), strict=True):
        np.add.at(total, (lane, places), values)
    found, before, inertia = np.empty(shape), np.ones(lanes), INERTIA * width
    for place in range(shape[1]):
        before = found[:, place] = (sums[0, :, place] + inertia * before) / (sums[1, :, place] + inertia)
    return found


def levels(steps: Sequence[Timed], clock: Clock) -> list[Timed]:
    """The steps of a bench as they would be at the machine's mean pace, by one of their two clocks.

    What steps of a kind usually take and the pace of each moment are estimated in turns, each from the other.
    """
    if not steps:
        return []
    numbers: dict[object, int] = {}
    kind = np.array([numbers.setdefault(each.kind, len(numbers)) for each in steps])
    lane, begun, spent = (np.array([getattr(each, name) for each in steps]) for name in ("lane", "begun", clock))
    width, pace = moment(spent), np.ones(len(steps))
    places = ((begun - begun.min()) / width).astype(int)
    members = [np.flatnonzero(kind == number) for number in range(len(numbers))]
    for _ in range(PASSES):
        usual = np.array([np.median(spent[each] / pace[each]) for each in members])[kind]
        found = course(lane, begun, spent, usual, int(lane.max()) + 1, width)[lane, places]
        pace = found / (found * usual).sum() * usual.sum()
    return [each.at_pace(float(slower)) for each, slower in zip(steps, pace, strict=True)]


def swings(stretches: Sequence[Floats], width: float) -> Pace | None:
    """Courses of several stretches of time as one, of mean one; None where nothing ran."""
    if not stretches:
        return None
    whole = np.concatenate(stretches, axis=1)
    whole = whole / whole.mean()
    return Pace(seconds=width, lanes=[[round(float(each), 3) for each in lane] for lane in whole])
