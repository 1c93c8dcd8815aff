"""Files that deploy a plan and check it on the real thing: the scenario, Kubernetes manifests, a load test."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from octavo.profiles.errors import ConfigError, MachineError
from octavo.profiles.fleet import Placement
from octavo.profiles.scenario import Scenario
from octavo.simulator.plan.demand import demand
from octavo.simulator.plan.result import Plan

GPU_RESOURCE = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}


def emit(plan: Plan, folder: Path, *, image: str) -> list[Path]:
    """Writes scenario.yaml, kubernetes.yaml and load-test.sh, and says where. `image` serves a model of the plan on the
    port 8000; which models, and on how many devices, it is told in its environment. Raises MachineError.
    """
    scenario = plan.scenario
    files = {
        "scenario.yaml": yaml.safe_dump(scenario.dump(), sort_keys=False, allow_unicode=True, width=110),
        "kubernetes.yaml": yaml.safe_dump_all(manifests(scenario, image), sort_keys=False),
        "load-test.sh": load_test(scenario),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "load-test.sh").chmod(0o755)
    except OSError as error:
        raise MachineError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return [folder / name for name in files]


def manifests(scenario: Scenario, image: str) -> Iterator[dict[str, Any]]:
    """A Deployment and a Service for every set of models that shares devices."""
    for place in scenario.fleet.placement:
        names = scenario.names_of(place)
        for together in [(name,) for name in names] if place.mode == "dedicated" else [names]:
            name = _label(together[0] if len(together) == 1 else f"{place.tier}-{place.mode}")
            yield _deployment(scenario, place, together, name, image)
            yield _service(name)


def _deployment(scenario: Scenario, place: Placement, names: tuple[str, ...], name: str, image: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "octavo", "app.kubernetes.io/name": name}
    container: dict[str, Any] = {
        "name": "engine",
        "image": image,
        "env": [{"name": key, "value": value} for key, value in _environment(scenario, place, names).items()],
        "ports": [{"name": "http", "containerPort": 8000}],
    }
    if resource := _resource(scenario, place):
        container["resources"] = {"limits": {resource: place.devices}}
    where = {"octavo/tier": _label(place.tier), "octavo/hardware": _label(place.hardware)}
    template = {"metadata": {"labels": labels}, "spec": {"nodeSelector": where, "containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": place.replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def _service(name: str) -> dict[str, Any]:
    selector = {"app.kubernetes.io/part-of": "octavo", "app.kubernetes.io/name": name}
    ports = [{"name": "http", "port": 8000, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": selector},
        "spec": {"selector": selector, "ports": ports},
    }


def _environment(scenario: Scenario, place: Placement, names: tuple[str, ...]) -> dict[str, str]:
    models = [model.name for name in names if (model := scenario.model_of(name))]
    return {
        "OCTAVO_EXPERTS": ",".join(names),
        "OCTAVO_MODELS": ",".join(models),
        "OCTAVO_PRECISION": ",".join(scenario.precision_of(name) for name in names),
        "OCTAVO_MODE": place.mode,
        "OCTAVO_TENSOR_PARALLEL": str(place.tensor_parallel),
        "OCTAVO_PIPELINE_PARALLEL": str(place.pipeline_parallel),
        "OCTAVO_MAX_NUM_SEQS": str(scenario.engine.max_num_seqs),
        "OCTAVO_MAX_NUM_BATCHED_TOKENS": str(scenario.engine.max_num_batched_tokens),
    }


def _resource(scenario: Scenario, place: Placement) -> str | None:
    """The name of the device in Kubernetes; None where it is no accelerator that a plugin hands out."""
    hardware = scenario.hardware_of(place)
    return GPU_RESOURCE.get(hardware.vendor.lower()) if hardware.kind == "gpu" else None


def _label(text: str) -> str:
    """A name that Kubernetes takes (RFC 1123)."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63]


def load_test(scenario: Scenario) -> str:
    """Commands that offer the plan's traffic to an OpenAI-compatible endpoint, at the front of the ensemble."""
    asked = demand(scenario, scenario.seeds[0])
    if asked.rate is None:
        raise ConfigError(f"{scenario.name}: workload.arrivals: a load test needs traffic with a rate")
    lengths = {"prompt": asked.prompts, "output": asked.answers}
    mean = {name: max(1, round(float(np.mean(tokens)))) for name, tokens in lengths.items()}
    spread = {name: round(float(np.std(tokens))) for name, tokens in lengths.items()}
    queries = str(len(asked.prompts))
    data = ",".join(f"{n}_tokens={mean[n]},{n}_tokens_stdev={spread[n]}" for n in lengths)
    guidellm = ["guidellm", "benchmark", "--target", "$URL", "--model", "$MODEL", "--rate-type", "poisson"]
    guidellm += ["--rate", f"{asked.rate:g}", "--max-requests", queries, "--data", data]
    aiperf = ["aiperf", "profile", "--model", "$MODEL", "--url", "$URL", "--endpoint-type", "chat", "--streaming"]
    aiperf += ["--request-rate", f"{asked.rate:g}", "--request-count", queries]
    for option, name in (("synthetic-input", "prompt"), ("output", "output")):
        aiperf += [f"--{option}-tokens-mean", str(mean[name]), f"--{option}-tokens-stddev", str(spread[name])]
    return _script(scenario, guidellm, aiperf)


def _script(scenario: Scenario, guidellm: list[str], aiperf: list[str]) -> str:
    wanted = [f"{name} {value:g}" for name, value in scenario.targets if value is not None]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            "# Offers the planned traffic to the ensemble's front door, and reports what it reaches.",
            f"# Wanted: {'; '.join(wanted) or 'nothing'} (SI units).",
            "set -euo pipefail",
            'URL="${1:?usage: load-test.sh URL MODEL [guidellm|aiperf]}"',
            'MODEL="${2:?usage: load-test.sh URL MODEL [guidellm|aiperf]}"',
            'case "${3:-guidellm}" in',
            f"    guidellm) exec {_quoted(guidellm)} ;;",
            f"    aiperf) exec {_quoted(aiperf)} ;;",
            '    *) echo "guidellm or aiperf, not $3" >&2; exit 2 ;;',
            "esac",
            "",
        ]
    )


def _quoted(words: list[str]) -> str:
    return " ".join(f'"{word}"' if word.startswith("$") else shlex.quote(word) for word in words)
