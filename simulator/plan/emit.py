"""Files that deploy a plan and check it on the real thing: the scenario, Ray Serve, Kubernetes, a load test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from octavo.profiles.branch import BranchPlace, branches_of
from octavo.profiles.errors import MachineError
from octavo.profiles.fleet import Placement
from octavo.profiles.scenario import Scenario
from octavo.simulator.plan.load import TRAFFIC, load_test, traffic
from octavo.simulator.plan.result import Plan

GPU_RESOURCE = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
BUNDLE = "/bundle"  # where the bundle's volume is mounted, in every pod
KEYS = "octavo-api-keys"  # the Secret, with one entry `keys`, and the volume claim
CLAIM = "octavo-bundle"
HEAD = {"cpu": "2", "memory": "8Gi"}


def emit(plan: Plan, folder: Path, *, image: str) -> list[Path]:
    """Writes scenario.yaml, serve.yaml, kubernetes.yaml, load-test.sh and what it replays, and says where.

    `image` holds Ray and octavo. Raises ConfigError where a model lives in several places, MachineError.
    """
    scenario = plan.scenario
    files = {
        "scenario.yaml": _yaml(scenario.dump()),
        "serve.yaml": _yaml(serve_config(scenario)),
        "kubernetes.yaml": yaml.safe_dump_all(manifests(scenario, image), sort_keys=False, width=110),
        "load-test.sh": load_test(scenario),
    }
    if rows := traffic(scenario):
        files[TRAFFIC] = rows
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "load-test.sh").chmod(0o755)
    except OSError as error:
        raise MachineError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return [folder / name for name in files]


def serve_config(scenario: Scenario) -> dict[str, Any]:
    """A Ray Serve config: `serve deploy` takes it, on nodes that carry the plan's resources (tier-hardware)."""
    branches = [_pinned(branch, place) for branch, place in branches_of(scenario)]
    server: dict[str, Any] = {"host": "0.0.0.0", "port": 8000}
    if scenario.ensemble.deadline is not None:
        server["deadline"] = scenario.ensemble.deadline
    arguments = {
        "bundle": BUNDLE,
        "branches": [branch.model_dump(mode="json", exclude_defaults=True) for branch in branches],
        "server": server,
        "samples": scenario.ensemble.samples_per_expert,
        "min_candidates": scenario.ensemble.min_candidates,
        "placement": {
            "max_rows": scenario.engine.max_num_seqs,
            "max_step_tokens": scenario.engine.max_num_batched_tokens,
        },
    }
    application = {
        "name": "octavo",
        "route_prefix": "/",
        "import_path": "octavo.runtime.cluster.deploy:build",
        "args": arguments,
    }
    return {"http_options": {"host": "0.0.0.0", "port": 8000}, "applications": [application]}


def manifests(scenario: Scenario, image: str) -> Iterator[dict[str, Any]]:
    """A RayService (KubeRay, ray.io/v1) whose worker groups are the plan's devices, and the bundle's volume claim."""
    labels = {"app.kubernetes.io/part-of": "octavo", "app.kubernetes.io/name": label(scenario.name)}
    cluster = {
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
            "template": {"metadata": {"labels": labels}, "spec": _pod(image, {"limits": HEAD, "requests": HEAD})},
        },
        "workerGroupSpecs": list(_workers(scenario, image, labels)),
    }
    yield {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": label(scenario.name), "labels": labels},
        "spec": {"serveConfigV2": _yaml(serve_config(scenario)), "rayClusterConfig": cluster},
    }
    yield {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "labels": labels},
        "spec": {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": f"{_gib(scenario)}Gi"}}},
    }


def _workers(scenario: Scenario, image: str, labels: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A group of pods per kind of replica: one pod holds one replica's devices."""
    groups: dict[tuple[str, str, int], tuple[Placement, int, int]] = {}
    for branch, place in branches_of(scenario):
        key = (place.tier, place.hardware, place.devices)
        _, low, high = groups.get(key, (place, 0, 0))
        groups[key] = (place, low + branch.replicas, high + (branch.max_replicas or branch.replicas))
    for (tier, hardware, devices), (place, low, high) in groups.items():
        kind = _resource(scenario, place)
        resources = {"limits": {kind: str(devices)}} if kind else {"requests": {"cpu": str(devices)}}
        where = {"octavo/tier": label(tier), "octavo/hardware": label(hardware)}
        yield {
            "groupName": label(f"{tier}-{hardware}-{devices}"),
            "replicas": low,
            "minReplicas": low,
            "maxReplicas": high,
            "rayStartParams": {"resources": f"'{{\"{kind_of(place)}\": {devices}}}'"},
            "template": {"metadata": {"labels": labels}, "spec": _pod(image, resources) | {"nodeSelector": where}},
        }


def _pod(image: str, resources: dict[str, Any]) -> dict[str, Any]:
    keys = {"secretKeyRef": {"name": KEYS, "key": "keys"}}
    container = {
        "name": "ray",
        "image": image,
        "env": [{"name": "OCTAVO_API_KEYS", "valueFrom": keys}],
        "resources": resources,
        "volumeMounts": [{"name": "bundle", "mountPath": BUNDLE, "readOnly": True}],
    }
    volume = {"name": "bundle", "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": True}}
    return {"containers": [container], "volumes": [volume]}


def kind_of(place: Placement) -> str:
    """Ray's name for the devices of a placement: a node of that kind carries so many of it."""
    return label(f"{place.tier}-{place.hardware}")


def _pinned(branch: BranchPlace, place: Placement) -> BranchPlace:
    return branch.model_copy(update={"resources": {kind_of(place): float(place.devices)}})


def _resource(scenario: Scenario, place: Placement) -> str | None:
    """The name of the device in Kubernetes; None where it is no accelerator that a plugin hands out."""
    hardware = scenario.hardware_of(place)
    return GPU_RESOURCE.get(hardware.vendor.lower()) if hardware.kind == "gpu" else None


def _gib(scenario: Scenario) -> int:
    """Room for every model's weights, with a tenth to spare."""
    names = [*(expert.name for expert in scenario.ensemble.experts), "value"]
    models = [(model, scenario.precision_of(name)) for name in names if (model := scenario.model_of(name)) is not None]
    return max(1, round(1.1 * sum(model.weight_bytes(precision) for model, precision in models) / 2**30))


def label(text: str) -> str:
    """A name that Kubernetes takes (RFC 1123)."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63]


def _yaml(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
