"""A sketch says of a point nearly what its simulation says: that is why so few are simulated."""

from __future__ import annotations

import pytest

from octavo.profiles import load_scenario
from octavo.profiles.load import baselines
from octavo.profiles.scenario import Scenario
from octavo.simulator import simulate
from octavo.simulator.plan import Space
from octavo.simulator.plan.sketch import Sketcher, is_sketchable
from octavo.simulator.plan.space import Point, furnished, shapes

FEW = ["workload.queries=150"]


def beside(scenario: Scenario, hardware: str, replicas: tuple[int, ...], *, together: bool = False) -> None:
    space = Space(hardware=(hardware,), tensor_parallel=(1,), together=together)
    full = furnished(scenario, space)
    shape = next(each for each in shapes(full, space) if len(each.placements) == len(replicas))
    point = Point(shape, replicas)
    sketch = Sketcher(full, 0).of(point)
    simulated = simulate(point.applied(full), seeds=[0])
    assert sketch is not None
    assert bool(sketch.overloaded) == bool(simulated.overloaded)
    for name, error in (("latency_p50", 0.06), ("latency_p95", 0.06), ("ttft_p95", 0.15)):
        assert sketch.metrics[name] == pytest.approx(simulated[name], rel=error), name


@pytest.mark.parametrize("replicas", [(1, 4), (2, 3), (2, 6)])
def test_experts_and_judges_on_devices_of_their_own(replicas: tuple[int, ...]) -> None:
    beside(load_scenario("single-box", FEW), "rtx-5090", replicas)


def test_one_expert_and_its_judge_on_the_same_devices() -> None:
    beside(baselines(load_scenario("single-box", FEW))["single-x16"], "b200", (1,), together=True)


def test_adapters_on_one_base() -> None:
    beside(load_scenario("lora-octet", FEW), "rtx-5090", (2,))


def test_a_hundred_samples_of_one_prompt() -> None:
    beside(load_scenario("codex-100", ["workload.queries=60"]), "mi300x", (1,))


def test_what_the_council_withdraws_is_not_sketched() -> None:
    assert not is_sketchable(load_scenario("edge-cascade"))
    assert not is_sketchable(load_scenario("failure-day"))


@pytest.mark.parametrize("name", ["single", "single-x16"])
def test_what_is_right_does_not_take_a_simulation(name: str) -> None:
    scenario = baselines(load_scenario("single-box", ["workload.queries=60"]))[name]
    assert Sketcher(scenario, 0).accuracy == pytest.approx(simulate(scenario, seeds=[0])["accuracy"])
