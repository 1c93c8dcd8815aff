"""What a buyer asks of a plan, and what may be chosen from."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from octavo.profiles import ConfigError, load_scenario
from octavo.profiles.scenario import Scenario
from octavo.simulator import simulate
from octavo.simulator.plan import Infeasible, Plan, Space, lines, plan, policies
from octavo.simulator.plan.lab import deciding

SPACE = Space(hardware=("l4", "l40s"), tensor_parallel=(1,), most_devices=12)
SMALL = [
    "ensemble.experts={model: llama-3.2-3b, count: 2, accuracy: 0.55}",
    "ensemble.value={kind: none}",
    "ensemble.policy={name: majority}",
    "fleet.placement=[{of: experts, tier: cloud, hardware: l4}]",
    "workload.queries=60",
    "workload.arrivals.rate=4 /s",
    "workload.answer_tokens={kind: lognormal, mean: 80, cv: 0.7, min: 2, max: 400}",
    "targets={latency_p95: 10 s}",
    "baselines=[]",
    "seeds=1",
]


def small(*changes: str) -> Scenario:
    return load_scenario("single-box", [*SMALL, *changes])


@pytest.fixture(scope="module")
def found() -> Plan:
    return plan(small(), space=SPACE, jobs=1, sensitive=True, check_longer=True)


def test_the_inputs_that_move_the_cost_come_first(found: Plan) -> None:
    assert 0 < len(found.sensitivity) <= 10
    assert all(one.size >= other.size for one, other in pairwise(found.sensitivity))
    price = next(swing for swing in found.sensitivity if swing.name == "device price")
    assert price.less == pytest.approx(0.8 * found.best.usd_per_hour)
    assert price.more == pytest.approx(1.2 * found.best.usd_per_hour)
    assert any("where an input changes" in line for line in lines(found))


def test_more_traffic_never_costs_less_within_the_sensitivity(found: Plan) -> None:
    for swing in found.sensitivity:
        if swing.name in ("traffic", "answer length") and swing.less is not None and swing.more is not None:
            assert swing.less <= found.best.usd_per_hour + 1e-9
            assert swing.more >= found.best.usd_per_hour - 1e-9


def test_the_tornado_is_what_plans_at_those_values_cost() -> None:
    """To one replica of the same devices, since it is sketched."""
    alike = Space(hardware=("l40s",), tensor_parallel=(1,), modes=("dedicated",), most_devices=48)

    def planned(rate: float, *, sensitive: bool = False) -> Plan:
        asked = small(f"workload.arrivals.rate={rate} /s", "targets.latency_p95=4 s")
        return plan(asked, space=alike, queries=400, jobs=1, sensitive=sensitive)

    busy = planned(30, sensitive=True)
    one = busy.best.usd_per_hour / busy.best.point.replicas[0]
    traffic = next(swing for swing in busy.sensitivity if swing.name == "traffic")
    for rate, said in ((24, traffic.less), (36, traffic.more)):
        assert said is not None
        assert abs(planned(rate).best.usd_per_hour - said) <= one + 1e-9


def test_runs_too_short_to_tell_are_said_to_be() -> None:
    alike = Space(hardware=("l40s",), tensor_parallel=(1,), modes=("dedicated",), most_devices=8)
    with pytest.raises(Infeasible, match=r"runs last 2 s where a query may take 4 s; --queries 960 "):
        plan(small("workload.arrivals.rate=30 /s", "targets.latency_p95=4 s"), space=alike, jobs=1)


def test_the_longer_check_runs_on_seeds_that_decided_nothing(found: Plan) -> None:
    again = found.recheck
    assert again is not None
    assert again.queries == 600
    assert not set(again.seeds) & set(found.best.seeds)
    assert found.checked() is not None
    assert json.loads(found.to_json())["recheck"]["queries_per_seed"] == 600


def test_what_fails_without_a_replica_is_said_of_every_placement(found: Plan) -> None:
    assert len(found.one_down) == len(found.best.point.shape.placements)


def test_what_a_spare_costs_is_said() -> None:
    """One device carries the traffic; the second is there for when one is away."""
    asked = ("workload.arrivals.rate=0.5 /s", "targets={latency_p95: 10 s, n_minus_1: {latency_p95: 10 s}}")
    lora = small("ensemble.adapters={kind: lora, rank: 16}", *asked)
    spared = plan(lora, space=Space(hardware=("l4",), modes=("lora",), most_devices=8), jobs=1)
    assert spared.scenario.devices() == {("cloud", "l4"): 2}
    assert [each.target for each in spared.relaxations] == ["n_minus_1"]
    assert spared.relaxations[0].saved == pytest.approx(spared.best.usd_per_hour / 2)
    assert spared.next_cheaper() is None


def test_the_strain_of_the_next_cheaper_fleet_is_named(found: Plan) -> None:
    cheaper = found.chosen.next_cheaper
    if cheaper is None:
        assert found.next_cheaper() is None
    else:
        assert "busiest" in cheaper.strain


def test_the_fleet_carries_what_the_headroom_says() -> None:
    """And no more than a little above it: the simulator finds the same border as the sketches."""
    tight = plan(small("workload.queries=300", "targets.latency_p95=8 s"), space=SPACE, jobs=1)
    assert tight.headroom is not None
    assert tight.headroom > 1
    rate = 4 * tight.headroom
    within = simulate(
        tight.scenario.model_copy(
            update={"workload": small(f"workload.arrivals.rate={rate * 0.9} /s", "workload.queries=300").workload}
        )
    )
    assert within["latency_p95"] <= 8 * 1.05


def test_with_an_accuracy_target_the_cheapest_policy_that_reaches_it_is_chosen() -> None:
    tried = policies(["single", "{name: best_of_n, samples: 2, by: mean_logprob}"], small())
    cheap = plan(small("targets.accuracy=0.3"), space=Space(hardware=("l4",), policies=tried, most_devices=8), jobs=1)
    assert cheap.chosen is not cheap.own
    assert cheap.best.usd_per_hour <= min(line.found.usd_per_hour for line in cheap.lines if line.best)
    assert cheap.best["accuracy"] >= 0.3


def test_without_one_policies_are_only_compared() -> None:
    compared = plan(small(), space=Space(hardware=("l4",), policies=policies(["single"], small())), jobs=1)
    assert compared.chosen is compared.own
    assert [line.name for line in compared.beside] == ["policy single"]


def test_all_policies_are_those_that_the_scenario_can_run() -> None:
    everything = {policy["name"] for policy in policies(["all"], load_scenario("single-box"))}
    assert everything == {"single", "majority", "best_of_n", "ensemble", "early_exit", "cascade"}
    assert {policy["name"] for policy in policies(["all"], small())} == {"single", "majority"}
    with pytest.raises(ConfigError, match="--policy"):
        policies(["[1, 2]"], small())


def test_batches_budgets_and_swapped_models_are_chosen_from() -> None:
    space = Space(hardware=("l4",), tensor_parallel=(1,), batches=(4, 64), budgets=(512,), most_devices=8)
    wide = plan(small("workload.arrivals.rate=0.2 /s"), space=space, jobs=1)
    assert wide.scenario.engine.max_num_batched_tokens == 512
    assert wide.scenario.engine.max_num_seqs in (4, 64)
    few = Space(hardware=("l4",), tensor_parallel=(1,), modes=("swapped",), together=False, most_devices=8)
    swapped = plan(small("workload.arrivals.rate=0.01 /s", "targets.latency_p95=60 s"), space=few, jobs=1)
    assert swapped.scenario.fleet.placement[0].mode == "swapped"
    assert swapped.scenario.devices() == {("cloud", "l4"): 1}


def test_runs_that_decide_are_long_enough_for_a_steady_state() -> None:
    slow, fast = (load_scenario("single-box", [f"workload.arrivals.rate={rate} /s"]) for rate in (2, 10))
    assert deciding(slow) == 320
    assert deciding(fast) == 1600


def test_a_larger_space_takes_no_more_simulations() -> None:
    """Sketches grow with the points; simulations only settle what is left."""
    few = plan(small(), space=Space(hardware=("l4",), most_devices=8), jobs=1)
    many = plan(small(), space=Space(hardware=("l4", "l40s", "a10", "rtx-4090"), most_devices=8), jobs=1)
    assert many.simulations <= few.simulations + 4
