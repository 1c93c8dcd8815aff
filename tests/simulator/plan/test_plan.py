"""Laws of the planner: it finds what brute force finds, says why, and says the same again."""

from __future__ import annotations

import json
import subprocess
from itertools import product
from pathlib import Path

import pytest
import yaml

from octavo.profiles import ConfigError, load_scenario
from octavo.profiles.errors import InfeasibleError
from octavo.profiles.load import override
from octavo.profiles.scenario import Scenario
from octavo.simulator import simulate
from octavo.simulator.plan import Infeasible, Interrupted, Plan, Space, emit, lines, lines_so_far, plan
from octavo.simulator.plan.bracket import erlang_wait
from octavo.simulator.plan.cost import usd_per_hour
from octavo.simulator.plan.pareto import Choice, front
from octavo.simulator.plan.space import Point, furnished, shapes

SPACE = Space(hardware=("l4", "l40s"), tensor_parallel=(1,), most_devices=12)
SMALL = [
    "ensemble.experts={model: llama-3.2-3b, count: 2, accuracy: 0.55}",
    "ensemble.value={kind: none}",
    "ensemble.policy={name: majority}",
    "fleet.placement=[{of: experts, tier: cloud, hardware: l4}]",
    "workload.queries=60",
    "workload.arrivals.rate=2 /s",
    "workload.answer_tokens={kind: lognormal, mean: 80, cv: 0.7, min: 2, max: 400}",
    "targets={latency_p95: 10 s}",
    "baselines=[]",
    "seeds=1",
]


def small(*changes: str) -> Scenario:
    return load_scenario("single-box", [*SMALL, *changes])


@pytest.fixture(scope="module")
def found() -> Plan:
    single = "{name: single, change: {ensemble: {policy: {name: single}}}}"
    return plan(small(f"baselines=[{single}]"), space=SPACE, jobs=1, what_if=["hardware.l4.price*=0.5"])


def brute_force(scenario: Scenario, space: Space, most: int) -> float:
    """The least cost of all fleets of the space with so many replicas at most, each simulated in full."""
    full = furnished(scenario, space)
    costs = []
    for shape in shapes(full, space):
        for replicas in product(range(1, most + 1), repeat=len(shape.placements)):
            applied = Point(shape, replicas).applied(full)
            result = simulate(applied)
            if not result.missed and not result.overloaded:
                costs.append(usd_per_hour(applied, {"watts": result["watts"]}))
    return min(costs)


JUDGED = (
    "ensemble.value={kind: model, model: llama-3.2-1b}",
    "ensemble.policy={name: ensemble}",
    "fleet.placement=[{of: experts, tier: cloud, hardware: l4}, {of: value, tier: cloud, hardware: l4}]",
)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("targets.latency_p95=5 s",),
        ("workload.arrivals.rate=8 /s",),
        ("targets={latency_p95: 10 s, tpot_p95: 22 ms}",),
        ("targets={latency_p95: 10 s, joules_per_query: 200}",),
        ("workload.arrivals={kind: gamma, rate: 4, cv: 4}", "seeds=3", "targets={latency_p95: 6 s}"),
        ("workload.arrivals={kind: diurnal, rate: 5, peak: 1.9, period: 20, peak_at: 10}", "workload.queries=120"),
        (*JUDGED, "workload.arrivals.rate=4 /s", "targets={latency_p95: 6 s, ttft_p95: 500 ms}"),
        (*JUDGED, "workload.arrivals.rate=4 /s", "ensemble.deadline=6 s", "targets={availability: 0.97}"),
        (*JUDGED, "workload.arrivals.rate=5 /s", "fleet.tiers.cloud.basis=owned", "targets={latency_p95: 5 s}"),
        (*JUDGED, "workload.arrivals.rate=4 /s", "targets={latency_p95: 6 s, n_minus_1: {latency_p95: 6 s}}"),
        ("workload.arrivals.rate=8 /s", "ensemble.min_candidates=4", "targets={n_minus_1: {availability: 0.99}}"),
        (
            *("ensemble.adapters={kind: lora, rank: 16}", "workload.arrivals.rate=6 /s", "seeds=3"),
            "targets={latency_p95: 6 s, n_minus_1: {latency_p95: 7 s, accuracy: 0.5}}",
        ),
    ],
)
def test_on_a_small_grid_the_plan_is_what_brute_force_finds(changes: tuple[str, ...]) -> None:
    scenario = small(*changes)
    assert plan(scenario, space=SPACE, jobs=1).best.usd_per_hour == pytest.approx(brute_force(scenario, SPACE, 3))


def test_a_budget_too_small_is_missed_by_the_cheapest_fleet_that_does_else() -> None:
    scenario = small("targets={latency_p95: 10 s, usd_per_query: 1e-6}")
    with pytest.raises(Infeasible, match="usd_per_query") as refused:
        plan(scenario, space=SPACE, jobs=1)
    assert refused.value.closest
    free = plan(small(), space=SPACE, jobs=1)
    assert refused.value.closest.usd_per_hour == free.best.usd_per_hour


def test_more_traffic_never_needs_less_cost() -> None:
    costs = [
        plan(small(f"workload.arrivals.rate={rate} /s"), space=SPACE, jobs=1).best.usd_per_hour for rate in (1, 4, 12)
    ]
    assert costs == sorted(costs)


def test_cheaper_hardware_never_raises_the_cost(found: Plan) -> None:
    supposed = found.what_if[0].usd_per_hour
    assert supposed is not None
    assert supposed <= found.best.usd_per_hour


def test_the_plan_holds_on_fresh_seeds(found: Plan) -> None:
    again = simulate(found.scenario, seeds=[101])
    assert not again.overloaded
    assert again["latency_p95"] < 1.25 * 10


def test_the_same_seed_gives_the_same_bytes_however_many_jobs() -> None:
    scenario = small("seeds=2")
    assert plan(scenario, space=SPACE, jobs=1).to_json() == plan(scenario, space=SPACE, jobs=2).to_json()


def test_an_infeasible_target_is_named_with_the_closest_fleet() -> None:
    with pytest.raises(Infeasible, match="ttft_p95") as caught:
        plan(small("targets={ttft_p95: 1 ms}"), space=SPACE, jobs=1)
    assert isinstance(caught.value, InfeasibleError)
    assert caught.value.exit_code == 3
    assert caught.value.closest is not None
    data = json.loads(caught.value.to_json())
    assert (data["feasible"], data["incomplete"]) == (False, None)
    assert data["plan"]["missed"][0].startswith("ttft_p95")


def test_what_was_found_before_an_interruption_is_kept(found: Plan) -> None:
    def stop(stage: str, share: float) -> None:
        if stage == "single" and share > 0:
            raise KeyboardInterrupt

    single = "{name: single, change: {ensemble: {policy: {name: single}}}}"
    with pytest.raises(Interrupted) as caught:
        plan(small(f"baselines=[{single}]"), space=SPACE, jobs=1, progress=stop)
    assert caught.value.best == found.best
    assert [line.finished for line in caught.value.lines] == [True, False]
    data = json.loads(caught.value.to_json())
    assert data["incomplete"].startswith("stopped while single was searched")
    assert data["plan"] == json.loads(found.to_json())["plan"]
    said = lines_so_far(caught.value)
    assert any(line.startswith("INCOMPLETE stopped") for line in said)
    assert max(map(len, said)) <= 100


def test_models_that_fit_nowhere_are_said_so() -> None:
    with pytest.raises(Infeasible, match="do not fit"):
        plan(small("ensemble.experts.model=llama-3.1-70b"), space=SPACE, jobs=1)


def test_an_overloaded_fleet_is_never_a_plan() -> None:
    result = plan(small("targets={}", "workload.arrivals.rate=8 /s"), space=SPACE, jobs=1)
    assert result.best.overloaded is None


def test_the_answer_fits_a_screen_and_says_what_a_buyer_asks(found: Plan) -> None:
    said = lines(found, co2=True)
    assert max(map(len, said)) <= 100
    assert len(said) < 50
    for word in ("buy", "cost", "$/month", "J/query", "CO2e", "sure", "cheaper", "relax", "failure", "pays", "what if"):
        assert any(word in line for line in said), word


def test_the_document_keeps_every_point(found: Plan) -> None:
    data = json.loads(found.to_json())
    assert data["kind"] == "plan"
    assert [line["name"] for line in data["lines"]] == ["single-box", "single"]
    assert len(data["lines"][0]["points"]) == len(found.own.lab.everything())
    assert data["pareto"]


def test_no_choice_on_the_front_is_beaten() -> None:
    choices = [Choice("a", str(i), a, u, t) for i, (a, u, t) in enumerate([(0.5, 1, 1), (0.6, 2, 1), (0.5, 2, 2)])]
    assert [choice.fleet for choice in front(choices)] == ["0", "1"]


def test_erlangs_wait_agrees_with_one_server_in_closed_form() -> None:
    # M/M/1 at half load: P(wait > t) = 0.5 exp(-t / 2), which is 0.05 at 2 ln 10.
    assert erlang_wait(1, 0.5, 1.0) == pytest.approx(4.605, rel=1e-3)


def test_a_space_that_sells_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="has a price"):
        plan(small(), space=Space(hardware=("raspberry-pi-5",)), jobs=1)


def test_what_is_emitted_loads_again(found: Plan, tmp_path: Path) -> None:
    scenario, serve, kubernetes, script = emit(found, tmp_path, image="registry.example/octavo:1")
    assert load_scenario(scenario).devices() == found.scenario.devices()
    (application,) = yaml.safe_load(serve.read_text())["applications"]
    gpus = sum(branch.get("gpus", 0) * branch.get("replicas", 1) for branch in application["args"]["branches"])
    assert gpus == sum(found.scenario.devices().values())
    assert [each["kind"] for each in yaml.safe_load_all(kubernetes.read_text())] == [
        "RayService",
        "PersistentVolumeClaim",
    ]
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "kind=poisson,rate=2" in script.read_text()


def test_at_the_break_even_price_both_fleets_cost_the_same(found: Plan) -> None:
    """What is said of a price is what the user's own simulations say at that price."""
    its = found.beside[0]
    ratio = its.found.usd_per_hour / found.best.usd_per_hour
    assert f"the same if its fleet cost {100 * ratio:.3g}% of what it does" in found.break_even()[0]
    (device,) = {place.hardware for place in found.best.point.shape.placements}
    cheap, other = simulate(override(found.scenario, [f"hardware.{device}.price*={ratio}"])), simulate(its.planned())
    assert cheap["usd_per_query"] == pytest.approx(other["usd_per_query"], rel=1e-3)  # egress apart
    assert cheap["latency_p95"] == found.best["latency_p95"]


def test_a_what_if_changes_only_what_it_says(found: Plan) -> None:
    assert override(small(), ["hardware.l4.price*=0.5"]).workload == small().workload
    assert found.what_if[0].changes == "hardware.l4.price*=0.5"
