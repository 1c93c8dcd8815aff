"""What a plan writes is read by those it is written for: the scenario loader, Ray Serve, Kubernetes, a shell."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from octavo.profiles import ConfigError, load_scenario
from octavo.profiles.branch import branches_of
from octavo.profiles.scenario import Scenario
from octavo.simulator.plan.demand import demand
from octavo.simulator.plan.emit import kind_of, manifests, serve_config
from octavo.simulator.plan.load import load_test, traffic

IMAGE = "registry.example/octavo:1"
CHANGES = {
    "dedicated": [],
    "sharded": ["fleet.placement.0.tensor_parallel=2", "fleet.placement.0.replicas=3"],
    "together": ["fleet.placement.0.mode=co-located"],
    "growing": ["fleet.operations.autoscale={max: 4}"],
    "clients": ["workload.arrivals={kind: closed_loop, clients: 12, think: 2}"],
    "batch": ["workload.arrivals={kind: at_once}", "workload.queries=40"],
}


@pytest.fixture(params=[*CHANGES, "edge"])
def scenario(request: pytest.FixtureRequest) -> Scenario:
    if request.param == "edge":
        return load_scenario("edge-cascade")
    return load_scenario("single-box", overrides=CHANGES[request.param])


def test_ray_serve_takes_the_config(scenario: Scenario) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="needs octavo[cluster]")
    from octavo.runtime.cluster.deploy import ClusterSettings

    data = yaml.safe_load(yaml.safe_dump(serve_config(scenario)))
    parsed = schema.ServeDeploySchema.model_validate(data)
    assert [each.import_path for each in parsed.applications] == ["octavo.runtime.cluster.deploy:build"]
    arguments = parsed.applications[0].args
    arguments["server"]["api_keys"] = ["a-key-of-a-test"]
    settings = ClusterSettings.model_validate(arguments)
    assert [branch.models for branch in settings.branches] == [branch.models for branch, _ in branches_of(scenario)]
    taken = sum(branch.replicas * sum(branch.resources.values()) for branch in settings.branches)
    assert taken == sum(scenario.devices_of(place) for place in scenario.fleet.placement)


def test_a_public_host_without_a_key_is_refused(scenario: Scenario) -> None:
    pytest.importorskip("ray", reason="needs octavo[cluster]")
    from octavo.runtime.cluster.deploy import build

    with pytest.raises(ConfigError, match="give an API key"):
        build(serve_config(scenario)["applications"][0]["args"])


def test_kubernetes_takes_the_pods_and_the_claim(scenario: Scenario) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    service, claim = yaml.safe_load_all(yaml.safe_dump_all(manifests(scenario, IMAGE)))
    version = validator.latest_version()
    validator.validate(claim, version, strict=True)
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        pod["metadata"] = {"name": "checked", **pod["metadata"]}
        validator.validate(pod, version, strict=True)
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]]
        assert claims == [claim["metadata"]["name"]]
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == serve_config(scenario)


def test_pods_have_room_for_the_branches(scenario: Scenario) -> None:
    """Each kind of device: what the worker groups bring is what the branches take."""
    service = next(manifests(scenario, IMAGE))
    brought: dict[str, float] = {}
    for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        kinds: dict[str, Any] = yaml.safe_load(yaml.safe_load(group["rayStartParams"]["resources"]))
        for kind, count in kinds.items():
            brought[kind] = brought.get(kind, 0) + count * group["replicas"]
    taken: dict[str, float] = {}
    for branch, place in branches_of(scenario):
        taken[kind_of(place)] = taken.get(kind_of(place), 0) + branch.replicas * place.devices
    assert brought == taken


def test_the_load_test_is_a_script(scenario: Scenario, tmp_path: Path) -> None:
    script = tmp_path / "load-test.sh"
    script.write_text(load_test(scenario))
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_clients_that_wait_and_batches_are_offered_as_they_are() -> None:
    clients, batch = (load_test(load_scenario("single-box", overrides=CHANGES[name])) for name in ("clients", "batch"))
    assert "--profile kind=concurrent,streams=12 " in clients
    assert "--concurrency 12 " in clients
    assert clients.count("clients of the plan think for 2 s") == 2
    assert "--profile kind=throughput,max_concurrency=40 " in batch
    assert "--concurrency 40 --request-count 40 " in batch
    assert ">&2; exec" not in batch


def test_bursts_are_replayed_as_they_were_planned_for(tmp_path: Path) -> None:
    arrivals = "workload.arrivals={kind: gamma, rate: 2, cv: 4}"
    bursty = load_scenario("single-box", overrides=[arrivals, "workload.queries=50"])
    (tmp_path / "traffic.jsonl").write_text(traffic(bursty) or "")
    replayed = f"workload.arrivals={{kind: trace, file: {tmp_path / 'traffic.jsonl'}}}"
    lengths = ["workload.prompt_tokens={kind: trace}", "workload.answer_tokens={kind: trace}"]
    again = demand(load_scenario("single-box", overrides=[replayed, *lengths]), 0)
    drawn = demand(bursty, bursty.seeds[0])
    assert again.prompts.tolist() == drawn.prompts.tolist()
    assert "--fixed-schedule" in load_test(bursty)
    assert traffic(load_scenario("single-box")) is None
