"""The error band of the step times reaches the answer: its intervals hold what shorter and longer steps come to."""

from __future__ import annotations

import json

from octavo.profiles import load_scenario
from octavo.simulator import simulate
from octavo.simulator.band import banded
from octavo.simulator.metrics import estimates
from octavo.simulator.run import run

CALM = ["workload.queries=80", "workload.arrivals.rate=0.5 /s"]


def test_intervals_hold_what_shorter_and_longer_steps_come_to() -> None:
    scenario = load_scenario("single-box", CALM)
    bare = simulate(scenario, seeds=[0])
    wide = banded(bare)
    shorter, longer = bare.band
    for pace in (1 - shorter, 1 + longer):
        other = estimates([run(scenario, 0, pace=pace).sample])
        for metric in ("latency_p50", "latency_p95", "ttft_p95", "usd_per_query", "joules_per_query"):
            found = wide.metrics[metric]
            assert found.value == bare[metric]
            if found.low is not None and found.high is not None:
                assert found.low - 1e-12 <= other[metric].value <= found.high + 1e-12
    found = wide.metrics["latency_p50"]
    assert found.high is not None
    assert found.high - found.value > 0.5 * longer * bare["latency_p50"]
    assert f"{bare.band}" == "-13% to +48%"
    assert json.loads(wide.to_json())["lines"][0]["intervals"] == "seeds and error band"
    assert json.loads(bare.to_json())["lines"][0]["intervals"] == "seeds"


def test_steps_that_take_longer_make_everything_later() -> None:
    scenario = load_scenario("single-box", CALM)
    fast, slow = (run(scenario, 0, pace=pace).sample for pace in (1.0, 1.2))
    assert slow.latency.mean() > 1.15 * fast.latency.mean()
    assert slow.ttft.mean() > fast.ttft.mean()


def test_a_system_that_only_keeps_up_with_steps_as_estimated_says_so() -> None:
    full = ["workload.queries=300", "workload.arrivals.rate=1.8 /s"]
    result = simulate(load_scenario("single-box", full), seeds=[0])
    assert not result.overloaded
    assert any(note.startswith("OVERLOADED if steps take 48% longer") for note in banded(result).notes)


def test_an_overloaded_system_is_overloaded_whatever_the_band() -> None:
    result = simulate(load_scenario("single-box", ["workload.queries=150", "workload.arrivals.rate=40 /s"]), seeds=[0])
    assert result.overloaded
    assert banded(result) == result
