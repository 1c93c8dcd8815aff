"""Scenarios from the package: each runs, keeps its books, and says when it cannot keep up."""

from __future__ import annotations

import json

import pytest

from octavo.profiles import ConfigError, load_scenario, override
from octavo.simulator import simulate, simulate_all, simulate_until

BUILT_IN = ["single-box", "gpt4-rumour", "lora-octet", "edge-cascade", "codex-100", "policies", "one-server"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_scenario_answers_every_query(name: str) -> None:
    result = simulate(load_scenario(name, ["workload.queries=60"]), seeds=[0])
    assert result["availability"] > 0.98
    assert 0 < result["ttft_p50"] <= result["latency_p50"] <= result["latency_p95"]
    assert result["usd_per_query"] > 0
    assert result["joules_per_query"] > 0


def test_a_day_of_failures_is_survived() -> None:
    """Replicas fail, are taken away, drained and scaled; queries are answered all the same, and the bill follows."""
    short = load_scenario("failure-day", ["workload.duration=2 h", "fleet.operations.spot_preemption.mtbf=2 h"])
    result = simulate(short, seeds=[0, 1])
    assert result["availability"] > 0.97
    assert any(note.startswith("spot: ") for note in result.notes)
    assert 6 < sum(result.devices.values()) < 27


def test_swapping_weights_costs_time_and_saves_devices() -> None:
    apart = load_scenario("single-box", ["workload.queries=60", "workload.arrivals.rate=0.05 /s"])
    swapped = load_scenario(
        "single-box",
        ["workload.queries=60", "workload.arrivals.rate=0.05 /s", "fleet.placement.0.mode=swapped"],
    )
    one, other = simulate(swapped, seeds=[0]), simulate(apart, seeds=[0])
    assert sum(one.devices.values()) == 2 < sum(other.devices.values()) == 9
    assert one["latency_p50"] > other["latency_p50"] + 7 * 16e9 / 64e9 / 2
    assert one["usd_per_query"] < other["usd_per_query"]


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


def test_more_seeds_until_the_interval_is_narrow() -> None:
    short = load_scenario("single-box", ["workload.queries=80", "workload.arrivals.rate=1 /s"])
    wide, narrow = (simulate_until(short, within, "latency_mean", most=24) for within in (0.5, 0.05))
    assert len(wide.seeds) < len(narrow.seeds)
    assert (narrow.metrics["latency_mean"].half_width or 1.0) <= 0.05 * narrow["latency_mean"]


def test_every_setting_of_the_engine_acts() -> None:
    base = load_scenario("single-box", ["workload.queries=60", "workload.arrivals.rate=6 /s"])
    changes = (
        "engine.chunked_prefill=false",
        "engine.prefix_caching=false",
        "engine.max_num_seqs=8",
        "engine.max_num_batched_tokens=2048",
        "engine.kv_blocks=700",
        "engine.step_overhead=1 ms",
        "engine.request_overhead=50 ms",
        "engine.kv_precision=fp8",
        "engine.precision=fp8",
        "ensemble.value.extra_tokens=500",
        "ensemble.deadline=1 s",
    )
    plain = simulate(base, seeds=[0])["latency_mean"]
    for change in changes:
        assert simulate(override(base, [change]), seeds=[0])["latency_mean"] != plain, change


def test_where_nothing_is_known_of_outcomes_costs_are_the_same_and_no_accuracy_is_given() -> None:
    changes = ["workload.queries=60", "workload.arrivals.rate=1 /s"]
    known = simulate(load_scenario("single-box", changes), seeds=[0])
    unknown = simulate(load_scenario("single-box", [*changes, "outcomes={kind: unknown}"]), seeds=[0])
    assert known.metrics.keys() - unknown.metrics.keys() == {"accuracy"}
    assert unknown["joules_per_query"] == pytest.approx(known["joules_per_query"], rel=1e-3)
    assert unknown["tokens_per_query"] == known["tokens_per_query"]


def test_an_overloaded_fleet_is_paid_for_until_it_is_done() -> None:
    """Nothing is cheap because it came faster than it could be answered; what was answered a second is the capacity."""
    loads = [["workload.arrivals.rate=3"], ["workload.arrivals.rate=30"], ["workload.arrivals={kind: at_once}"]]
    calm, full, batch = (
        simulate(load_scenario("one-server", [*load, "workload.queries=400"]), seeds=[0]) for load in loads
    )
    assert full.overloaded
    assert not calm.overloaded
    assert full["usd_per_query"] == pytest.approx(batch["usd_per_query"], rel=0.15)
    assert full["throughput"] == pytest.approx(batch["throughput"], rel=0.15)


def test_a_day_above_capacity_is_overload_and_a_quiet_one_is_not() -> None:
    hour = "queries: null, duration: 1 h"
    day = "workload={{from: chat, arrivals: {{kind: diurnal, rate: {}, peak: 1.3, period: 1 h}}, " + hour + "}}"
    crowded, quiet = (
        simulate(load_scenario("one-server", [day.format(rate), "engine.max_num_seqs=8"]), seeds=[0])
        for rate in (2, 0.5)
    )
    assert crowded.overloaded is not None
    assert "the rest of the day" in crowded.overloaded
    assert quiet.overloaded is None


def test_a_run_says_what_it_does_not_tell_of_its_workload() -> None:
    night = ["workload.arrivals={kind: diurnal, rate: 3, peak: 2, period: 24 h}", "workload.queries=300"]
    result = simulate(load_scenario("one-server", night), seeds=[0])
    assert any("of the day" in note and "where the mean is 3" in note for note in result.notes)
    few = simulate(load_scenario("one-server", ["workload.queries=10"]), seeds=[0])
    assert any("10 queries do not tell" in note for note in few.notes)


def test_what_is_not_sold_is_said_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"jetson-agx-thor\.price\.usd_per_hour\.on_demand is unknown"):
        simulate(
            load_scenario("one-server", ["fleet.placement.0.hardware=jetson-agx-thor", "workload.queries=1000000"])
        )
