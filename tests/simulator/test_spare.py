"""N-1: with a replica away the others carry its load, and a model without any other is missed by the query, no more."""

from __future__ import annotations

import pytest

from octavo.profiles import ConfigError, load_scenario
from octavo.profiles.scenario import Scenario
from octavo.simulator import simulate
from octavo.simulator.run import run
from octavo.simulator.spare import silenced, victims

SMALL = ["workload.queries=60", "baselines=[]", "seeds=1"]
EXPERTS = "{of: experts, tier: cloud, hardware: h100-sxm, replicas: 2}"


def small(*changes: str) -> Scenario:
    return load_scenario("single-box", [*SMALL, *changes])


def test_a_replica_away_is_a_fleet_without_it_that_is_paid_for_with_it() -> None:
    away = simulate(small(f"fleet.placement.0={EXPERTS}", "fleet.operations.down=[expert-1]"))
    rest = EXPERTS.replace("experts", "[expert-2, expert-3, expert-4, expert-5, expert-6, expert-7, expert-8]")
    one = EXPERTS.replace("experts", "expert-1").replace("2}", "1}")
    value = "{of: value, tier: cloud, hardware: h100-sxm}"
    built = simulate(small(f"fleet.placement=[{one}, {rest}, {value}]"))
    same = ("latency_p50", "latency_p95", "ttft_p95", "accuracy")
    assert [away[metric] for metric in same] == [built[metric] for metric in same]
    assert sum(away.devices.values()) == 1 + sum(built.devices.values()) == 17


def test_without_its_judge_the_ensemble_answers_by_log_probability() -> None:
    whole, away = simulate(small()), simulate(small("fleet.operations.down=[value]"))
    assert away["availability"] == away["degraded"] == 1.0
    assert away["accuracy"] < whole["accuracy"]
    assert away["latency_p50"] < whole["latency_p50"]


@pytest.mark.parametrize("needed", [1, 14, 15])
def test_who_is_said_to_leave_no_answers_leaves_none(needed: int) -> None:
    scenario = small(f"ensemble.min_candidates={needed}")
    assert victims(scenario) == ("expert-1", "value")
    for model in victims(scenario):
        away = scenario.without(model)
        answered = [query.outcome == "answered" for query in run(away, 0).world.queries]
        assert any(answered) == all(answered) == (silenced(away) is None)
    with pytest.raises(ConfigError, match="14 of 16 candidates are left, 15 needed"):
        simulate(small("ensemble.min_candidates=15", "fleet.operations.down=[expert-3]"))


def test_experts_that_differ_and_groups_that_share_devices_are_missed_each_in_their_way() -> None:
    mixed = small("ensemble.experts=[{model: llama-3.1-8b, count: 2}, {model: llama-3.2-3b, count: 2}]")
    assert victims(mixed) == ("expert-1", "expert-3", "value")
    lora = load_scenario("lora-octet", SMALL)
    assert victims(lora) == ("expert-1",)
    assert silenced(lora.without("expert-1"))


def test_what_is_missed_with_a_device_away_is_missed() -> None:
    result = simulate(small("targets={latency_p95: 1 min, n_minus_1: {accuracy: 0.7, latency_p95: 1 min}}"))
    (missed,) = result.missed
    assert missed.startswith("without a replica of value: target accuracy 0.7 is missed: 0.")


def test_what_would_be_replaced_or_is_not_there_cannot_be_away() -> None:
    with pytest.raises(ConfigError, match=r"down\.0: 'expert-9' -> no such model"):
        small("fleet.operations.down=[expert-9]")
    with pytest.raises(ConfigError, match="autoscale"):
        simulate(load_scenario("failure-day", ["targets.n_minus_1={}"]))
