"""A deadline does not hide that a system is asked for more than it can do."""

from __future__ import annotations

from octavo.profiles import load_scenario
from octavo.simulator import Result, simulate


def small(rate: float, deadline: float) -> Result:
    change = [f"workload.arrivals.rate={rate} /s", f"ensemble.deadline={deadline} s", "workload.queries=200"]
    return simulate(load_scenario("single-box", change), seeds=[0])


def test_an_overload_that_a_deadline_cuts_short_is_said() -> None:
    hidden = small(rate=8, deadline=5)
    assert hidden.overloaded is None
    assert hidden["degraded"] > 0.5
    (said,) = hidden.notes
    assert said.startswith("OVERLOADED but for the deadline")


def test_a_deadline_that_is_short_for_an_answer_is_no_overload() -> None:
    hurried = small(rate=0.5, deadline=5)
    assert hurried["degraded"] > 0.2
    assert not hurried.notes
