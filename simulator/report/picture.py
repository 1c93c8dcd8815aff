"""Measured accuracy beside simulated cost: which points there are, and which of them nothing else beats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from octavo.simulator.report.document import Estimate, Evaluation, Measured, Simulation
from octavo.simulator.report.roles import deployable, ensemble_of, inferences

COST = "usd_per_query"


@dataclass(frozen=True, slots=True)
class Point:
    """A policy that was both run and simulated."""

    policy: Measured
    cost: Estimate

    @property
    def label(self) -> str:
        return self.policy.label

    @property
    def accuracy(self) -> Estimate:
        return self.policy.accuracy


@dataclass(frozen=True, slots=True)
class Picture:
    """An evaluation and a simulation, joined by the keys of their rows; what only one of them has is listed."""

    evaluation: Evaluation
    simulation: Simulation
    points: tuple[Point, ...]
    only_measured: tuple[str, ...]
    only_simulated: tuple[str, ...]
    overloaded: tuple[str, ...]

    @property
    def frontier(self) -> tuple[Point, ...]:
        """The points that no other matches at a lower or equal cost, cheapest first."""
        return pareto(self.points)

    @property
    def rival(self) -> Measured | None:
        """Of the policies without a cost, the one of fewest inferences that is as accurate as the ensemble."""
        shown = {point.policy.key for point in self.points}
        least = ensemble_of(self.evaluation).accuracy.value
        others = [p for p in deployable(self.evaluation) if p.key not in shown and p.accuracy.value >= least]
        return min(others, key=lambda p: (inferences(p), -p.accuracy.value), default=None)

    def better_than(self, point: Point) -> tuple[Point, ...]:
        """Points at least as accurate and at most as dear, and one of the two strictly."""
        return tuple(other for other in self.points if _dominates(other, point))


def pictures(evaluations: Iterable[Evaluation], simulations: Sequence[Simulation]) -> tuple[Picture, ...]:
    """Every evaluation with every simulation that shares keys with it; one point alone compares nothing."""
    joined = (_join(evaluation, simulation) for evaluation in evaluations for simulation in simulations)
    return tuple(picture for picture in joined if len(picture.points) > 1)


def pareto(points: Iterable[Point]) -> tuple[Point, ...]:
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost.value, -p.accuracy.value)):
        if not found or point.accuracy.value > found[-1].accuracy.value:
            found.append(point)
    return tuple(found)


def _join(evaluation: Evaluation, simulation: Simulation) -> Picture:
    """A line that does not keep up with its traffic has no cost per query that means anything."""
    policies = {line.key: line for line in simulation.lines}
    costs = {key: line.metrics[COST] for key, line in policies.items() if COST in line.metrics and not line.overloaded}
    run = {policy.key for policy in evaluation.policies}
    return Picture(
        evaluation,
        simulation,
        tuple(Point(policy, costs[policy.key]) for policy in evaluation.policies if policy.key in costs),
        tuple(policy.label for policy in evaluation.policies if policy.key not in policies),
        tuple(line.key for key, line in policies.items() if key not in run),
        tuple(line.key for key, line in policies.items() if key in run and key not in costs),
    )


def _dominates(one: Point, other: Point) -> bool:
    dearer, better = one.cost.value - other.cost.value, one.accuracy.value - other.accuracy.value
    return dearer <= 0 <= better and (dearer < 0 or better > 0)
