"""A real Ray on this machine: the plan is the one that is found here, and so are the errors."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from octavo.profiles import ConfigError, load_scenario
from octavo.profiles.scenario import Scenario
from octavo.simulator.plan import Space, plan

ray = pytest.importorskip("ray", reason="needs octavo[cluster]")

SMALL = [
    "ensemble.experts={model: llama-3.2-3b, count: 2, accuracy: 0.55}",
    "ensemble.value={kind: none}",
    "ensemble.policy={name: majority}",
    "fleet.placement=[{of: experts, tier: cloud, hardware: l4}]",
    "workload.queries=60",
    "workload.arrivals.rate=2 /s",
    "workload.answer_tokens={kind: lognormal, mean: 80, cv: 0.7, min: 2, max: 400}",
    "targets={latency_p95: 10 s}",
    "baselines=[{name: single, change: {ensemble: {policy: {name: single}}}}]",
    "seeds=2",
]
SPACE = Space(hardware=("l4",), tensor_parallel=(1,), most_devices=8)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def small(*changes: str) -> Scenario:
    return load_scenario("single-box", [*SMALL, *changes])


def test_the_same_seed_gives_the_same_plan_on_a_cluster_as_here() -> None:
    from octavo.simulator.plan.on_ray import RayPool

    asked = ["hardware.l4.price*=0.5", "workload.arrivals.rate*=3"]
    seen: list[tuple[str, float]] = []
    pool = RayPool()
    there = plan(small(), space=SPACE, what_if=asked, pool=pool, progress=lambda *said: seen.append(said))
    assert there.to_json() == plan(small(), space=SPACE, what_if=asked, jobs=1).to_json()
    assert json.loads(there.to_json())["simulations"] == pool.runs > 0
    names = {name for name, share in seen if share == 1.0}
    assert {"single-box", "single", *(f"what if {each}" for each in asked)} <= names
    assert ray.is_initialized(), "it leaves a cluster that it did not start"


def test_an_error_of_a_task_is_raised_as_it_is() -> None:
    from octavo.simulator.plan.on_ray import RayPool

    def refuse(pool: object, task: str, progress: object) -> None:
        raise ConfigError(f"{task}: wrong")

    with RayPool() as pool, pytest.raises(ConfigError, match=r"^rate: wrong$"):
        list(pool.each(refuse, [("a line", "rate")], lambda *said: None))
