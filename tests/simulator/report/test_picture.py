"""The picture joins what was measured with what was simulated, and nothing else."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from octavo.simulator.report.document import Estimate, Evaluation, Line, Measured, Simulation
from octavo.simulator.report.picture import COST, Point, pareto, pictures


def policy(key: str, accuracy: float) -> Measured:
    return Measured(key=key, label=key, accuracy=Estimate(value=accuracy))


def point(accuracy: float, cost: float) -> Point:
    return Point(policy(f"{accuracy}@{cost}", accuracy), Estimate(value=cost))


def simulation(name: str, **costs: float) -> Simulation:
    lines = [Line(key=key, label=key, metrics={COST: Estimate(value=usd)}) for key, usd in costs.items()]
    return Simulation(source=f"{name}.json", name=name, lines=tuple(lines))


EVALUATION = Evaluation(source="e.json", queries=10, policies=(policy("a", 0.5), policy("b", 0.6), policy("c", 0.7)))


def test_only_policies_that_are_in_both_are_points_and_the_others_are_listed() -> None:
    (found,) = pictures([EVALUATION], [simulation("s", a=1, b=2, d=3)])
    assert [p.policy.key for p in found.points] == ["a", "b"]
    assert found.only_measured == ("c",)
    assert found.only_simulated == ("d",)


def test_a_scenario_that_shares_fewer_than_two_policies_is_no_picture() -> None:
    assert pictures([EVALUATION], [simulation("s", a=1), simulation("t", x=1, y=2)]) == ()


def test_a_line_without_a_cost_is_no_point() -> None:
    free = Simulation(source="s.json", name="s", lines=(Line(key="a", label="a", metrics={}),))
    assert pictures([EVALUATION], [free]) == ()


POINTS = st.lists(
    st.builds(point, st.integers(0, 20).map(lambda n: n / 20), st.integers(1, 20).map(float)), min_size=1, max_size=30
)


@given(POINTS)
def test_every_point_is_on_the_frontier_or_beaten_by_one_that_is(points: list[Point]) -> None:
    frontier = pareto(points)
    for each in points:
        assert any(p.cost.value <= each.cost.value and p.accuracy.value >= each.accuracy.value for p in frontier)


@given(POINTS)
def test_along_the_frontier_both_cost_and_accuracy_rise(points: list[Point]) -> None:
    frontier = pareto(points)
    for cheap, dear in pairwise(frontier):
        assert cheap.cost.value < dear.cost.value
        assert cheap.accuracy.value < dear.accuracy.value
