"""What a result says of itself: to a notebook, to a machine, and when the system does not keep up."""

from __future__ import annotations

import json

import pytest

from octavo.profiles import load_scenario
from octavo.simulator import Result, simulate


@pytest.fixture(scope="module")
def calm() -> Result:
    return simulate(load_scenario("single-box", ["workload.queries=60"]), seeds=[0, 1])


@pytest.fixture(scope="module")
def late() -> Result:
    """Ninety-five times what it can do."""
    return simulate(load_scenario("single-box", ["workload.queries=200", "workload.arrivals.rate=200 /s"]), seeds=[0])


def test_a_notebook_shows_every_metric_and_its_interval(calm: Result) -> None:
    page = calm._repr_html_()
    for metric in calm.metrics:
        assert f"<td>{metric}</td>" in page
    assert f"{calm['latency_p50']:.4g}" in page
    assert "Overloaded" not in page


def test_an_overloaded_system_gives_no_comfortable_number(late: Result) -> None:
    assert late.overloaded
    assert not late.missed
    line = json.loads(late.to_json())["lines"][0]
    assert line["overloaded"] == late.overloaded
    assert line["notes"][0].startswith("OVERLOADED")
    assert line["latencies"] == []
    assert not [name for name in line["metrics"] if name.startswith(("latency", "ttft", "tpot"))]
    page = late._repr_html_()
    assert "Overloaded" in page
    assert "latency_p50" not in page


def test_a_system_that_keeps_up_does_as_much_as_it_is_asked(calm: Result) -> None:
    assert not calm.overloaded
    assert calm["availability"] == 1.0
