"""Finds the cheapest point that meets the targets: bounds first, then as few simulations as settle it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import ceil, inf

from octavo.profiles.scenario import Targets
from octavo.simulator.plan.bracket import Bracket
from octavo.simulator.plan.cost import idle_usd_per_hour
from octavo.simulator.plan.lab import Lab
from octavo.simulator.plan.space import Point, Shape
from octavo.simulator.plan.trials import Evaluation

COUNTS = 64
"""Numbers of replicas that are tried of a placement, evenly spaced where there are more."""
GALLOP = 1.25
"""While nothing meets the targets the next fleet to try costs so many times the last."""
SPENT = ("joules_per_query",)
"""Targets that a larger fleet misses by more."""


@dataclass
class Search:
    """More replicas never miss a target that fewer meet; so a point that fails settles all that are smaller, or all
    that are larger where it is what it spends that is too much. `targets` has none of those that no fleet changes.

    Without `settles` nothing is simulated that can be sketched; without `thorough` cheaper fleets that fail narrowly in
    a sketch stay failed.
    """

    lab: Lab
    targets: Targets
    brackets: Sequence[Bracket]
    progress: Callable[[float], None] = lambda share: None
    most_devices: int = 512
    settles: bool = True
    thorough: bool = True
    best: Evaluation | None = None
    prices: dict[int, tuple[list[float], list[int]]] = field(default_factory=dict)

    def run(self) -> Evaluation | None:
        """The cheapest point of them all, confirmed at full length; None where there is none."""
        open_ = [each for each in self.brackets if not each.refused]
        order = sorted(open_, key=lambda each: (self._cost(each.start), each.shape.key))
        while True:
            self._sweep(order)
            if self.best and not self._meets(self.lab.refine(self.best.point)):
                continue
            if not self.settles:
                return self.best
            if self.best and not self._meets(self.lab.confirm(self.best.point, self.targets)):
                continue
            if not self.thorough or not self._second_look():
                break
        self.progress(1.0)
        found = [each for each in self.lab.full.values() if self._meets(each)]
        return min(found, key=lambda each: (each.usd_per_hour, each.point.key), default=None)

    def _sweep(self, order: Sequence[Bracket]) -> None:
        """The cheapest by what is known so far, short runs included."""
        self.best = None
        for number, each in enumerate(order):
            self.progress(number / len(order))
            self._settle(each)

    def _second_look(self) -> bool:
        """Runs the dearest of the cheaper points that failed narrowly at full length; whether it meets the targets."""
        limit = self.best.usd_per_hour if self.best else inf
        failed = [
            point for point, found in self.lab.full.items() if not (self._meets(found) or self._only_spends(found))
        ]
        while True:
            doubtful = [
                each
                for each in self.lab.doubtful(self.targets)
                if each.usd_per_hour < limit and not any(self._dooms(point, each.point) for point in failed)
            ]
            if not doubtful:
                return False
            point = max(doubtful, key=lambda each: (each.usd_per_hour, each.point.key)).point
            finer = self.lab.refine(point)
            if not (self._meets(finer) or self.lab.is_doubtful(finer, self.targets)):
                continue
            if self._meets(self.lab.confirm(point, self.targets)):
                return True
            failed.append(point)

    def _meets(self, found: Evaluation) -> bool:
        return found.meets(self.targets)

    def _only_spends(self, found: Evaluation) -> bool:
        """Whether it would do if it took less."""
        missed = [] if found.refused or found.overloaded else found.missed(self.targets)
        return bool(missed) and all(miss.target in SPENT for miss in missed)

    def _settle(self, shape: Bracket) -> None:
        """Tries points of a shape until every one that is cheaper than the best is known to fail."""
        left = sorted(self._points(shape), key=lambda point: (self._cost(point), point.replicas))
        probe = shape.start if self.best is None else None
        while left := [point for point in left if self.best is None or self._cost(point) < self.best.usd_per_hour]:
            point = probe if probe and probe in left else left[-1]
            found = self.lab.judge(point)
            if self._meets(found):
                if self.best is None or found.usd_per_hour < self.best.usd_per_hour:
                    self.best = found
                left = [other for other in left if not _covers(other, point)]
            elif self._only_spends(found):
                left = [other for other in left if not _covers(other, point)]
            elif self.lab.is_doubtful(found, self.targets):
                left.remove(point)
            else:
                left = [other for other in left if not self._dooms(point, other)]
            probe = self._next(left, point) if left else None

    def _dooms(self, point: Point, other: Point) -> bool:
        """Whether the other fails because the point does.

        With a device away, the last replica of an expert leaves the rest in peace where one of two leaves a crowd.
        """
        lone = self.targets.n_minus_1 is None or _lone(point) == _lone(other)
        return lone and _covers(point, other)

    def _next(self, left: Sequence[Point], tried: Point) -> Point:
        """Half-way where something is found, else something dearer than what was just tried."""
        if self.best:
            return left[len(left) // 2]
        return next((point for point in left if self._cost(point) >= GALLOP * self._cost(tried)), left[-1])

    def _points(self, shape: Bracket) -> Iterator[Point]:
        """Those that cost less than the best."""
        limit = self.best.usd_per_hour if self.best else inf
        prices, sizes = self._prices(shape.shape)
        ranges = [_counts(low, high) for low, high in zip(shape.low, shape.high, strict=True)]
        for replicas in product(*ranges):
            if sumprod(sizes, replicas) <= self.most_devices and sumprod(prices, replicas) < limit:
                yield Point(shape.shape, replicas)

    def _prices(self, shape: Shape) -> tuple[list[float], list[int]]:
        """What a replica of each placement costs at least, USD/h, and its devices."""
        if (known := self.prices.get(id(shape))) is None:  # the brackets keep their shapes
            scenario = self.lab.scenario
            sizes = [scenario.devices_of(place) for place in shape.placements]
            one = [idle_usd_per_hour(scenario, place.tier, place.hardware) for place in shape.placements]
            known = self.prices[id(shape)] = [size * usd for size, usd in zip(sizes, one, strict=True)], sizes
        return known

    def _cost(self, point: Point) -> float:
        """What the point costs at least, USD/h."""
        return sumprod(self._prices(point.shape)[0], point.replicas)


def sumprod(each: Sequence[float], counts: Sequence[int]) -> float:
    return sum(one * count for one, count in zip(each, counts, strict=True))


def _lone(point: Point) -> list[bool]:
    return [count == 1 for count in point.replicas]


def _covers(point: Point, other: Point) -> bool:
    """Whether the point is the other with at least as many replicas everywhere."""
    if point.shape is not other.shape and point.shape != other.shape:
        return False
    return all(mine >= its for mine, its in zip(point.replicas, other.replicas, strict=True))


def _counts(low: int, high: int) -> range:
    return range(low, high + 1, max(1, ceil((high + 1 - low) / COUNTS)))
