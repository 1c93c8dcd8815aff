"""What a result says of itself: to a notebook, to a machine, and when the system does not keep up."""

from __future__ import annotations

import json

import pytest

from octavo.profiles import load_scenario
from octavo.profiles.errors import ConfigError
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


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("engine.kv_blocks=4", "new tokens do not fit 4 KV blocks of 16 tokens"),
        ("engine={chunked_prefill: false, max_num_batched_tokens: 256}", "more than a step takes .256., and without"),
        (
            "workload.prompt_tokens={kind: constant, tokens: 200000}",
            "a prompt of 200000 tokens leaves no room in 131072",
        ),
    ],
)
def test_a_scenario_whose_queries_no_device_could_ever_hold_is_refused(change: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"no query could run at all: .*{why}.*engine.kv_blocks"):
        simulate(load_scenario("single-box", ["workload.queries=5", change]), seeds=[0])


def test_a_deadline_that_nobody_meets_is_called_infeasible() -> None:
    result = simulate(load_scenario("single-box", ["workload.queries=5", "ensemble.deadline=0.01 s"]), seeds=[0])
    assert any("INFEASIBLE: no query is answered within its deadline of 0.01 s" in note for note in result.notes)
    assert any("0 candidates arrived by the deadline" in note for note in result.notes)


def test_queries_that_fail_or_are_rejected_are_counted_and_the_first_says_why() -> None:
    lengths = "workload.prompt_tokens={kind: uniform, min: 2000, max: 200000}"
    result = simulate(load_scenario("single-box", ["workload.queries=20", lengths]), seeds=[0])
    assert any("queries rejected; the first: a prompt of" in note for note in result.notes)
