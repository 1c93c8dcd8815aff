"""Scenarios from the package: each runs, keeps its books, and says when it cannot keep up."""

from __future__ import annotations

import json

import pytest

from octavo.profiles import ConfigError, load_scenario
from octavo.simulator import simulate, simulate_all

BUILT_IN = ["single-box", "gpt4-rumour", "lora-octet", "edge-cascade", "codex-100", "policies"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_scenario_answers_every_query(name: str) -> None:
    result = simulate(load_scenario(name, ["workload.queries=60"]), seeds=[0])
    assert result["availability"] > 0.98
    assert 0 < result["ttft_p50"] <= result["latency_p50"] <= result["latency_p95"]
    assert result["usd_per_query"] > 0
    assert result["joules_per_query"] > 0


def test_baselines_meet_the_same_arrivals() -> None:
    results = simulate_all(load_scenario("single-box", ["workload.queries=40"]), seeds=[0], trace=True)
    assert [result.name for result in results] == ["single-box", "single", "single-x16"]
    assert results[1]["latency_p50"] < results[0]["latency_p50"]
    assert results[1]["usd_per_query"] < results[0]["usd_per_query"]


def test_the_same_seed_gives_the_same_bytes() -> None:
    scenario = load_scenario("single-box", ["workload.queries=40"])
    assert simulate(scenario, seeds=[3]).to_json() == simulate(scenario, seeds=[3]).to_json()
    assert simulate(scenario, seeds=[3]).to_json() != simulate(scenario, seeds=[4]).to_json()


def test_overload_is_called_overload() -> None:
    scenario = load_scenario("single-box", ["workload.arrivals.rate=40 /s", "workload.queries=600"])
    result = simulate(scenario, seeds=[0])
    assert result.overloaded is not None
    assert "queries/s" in result.overloaded
    line = json.loads(result.to_json())["lines"][0]
    assert not [name for name in line["metrics"] if name.startswith(("latency", "ttft", "tpot"))]
    assert line["notes"][0].startswith("OVERLOADED")


def test_an_idle_system_is_not_overloaded() -> None:
    scenario = load_scenario("single-box", ["workload.arrivals.rate=0.5 /s", "workload.queries=100"])
    assert simulate(scenario, seeds=[0]).overloaded is None


def test_weights_that_do_not_fit_are_refused_with_numbers() -> None:
    scenario = load_scenario("single-box", ["ensemble.experts.model=llama-3.1-70b"])
    with pytest.raises(ConfigError, match=r"141\.1 GB of the"):
        simulate(scenario, seeds=[0])


def test_a_result_shows_itself_in_a_notebook() -> None:
    result = simulate(load_scenario("single-box", ["workload.queries=30"]), seeds=[0])
    assert "<table>" in result._repr_html_()
