"""Opens a bundle's models and places them on devices: what runs where, with how much memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from octavo.profiles.errors import BundleError, ConfigError
from octavo.profiles.manifest import KVLayout, Manifest, ValueEntry, Weights
from octavo.runtime.contents import Contents
from octavo.runtime.core.scheduler import Limits
from octavo.runtime.engine import Engine
from octavo.runtime.lane import Lane
from octavo.runtime.ort.engine import ExpertEngine
from octavo.runtime.ort.providers import CPU, SHORT, Choice, choose_provider
from octavo.runtime.ort.session import Device, Model, open_model
from octavo.runtime.text import Vocabulary
from octavo.runtime.value import ValueEngine

BLOCK = 16  # tokens of KV that are counted as one
MEMORY_SHARE = 0.4  # of the free memory, for all KV caches together


@dataclass(frozen=True, slots=True)
class Placement:
    """How to run a bundle.

    `devices` (cpu:0, cpu:1, cuda:0, ...) each get a thread, and models are dealt out to them in order; None: on the CPU
    one per core, as far as there are models, else one GPU. `threads` are those of one model's call; None: what cores
    are left to each device. `context` are the tokens that a sequence may hold, prompt and answer. `max_rows` and
    `max_step_tokens` bound a batch. `kv_bytes` bounds the KV caches of all models together.
    """

    provider: str | None = None
    allow_fallback: bool = False
    devices: Sequence[str] | None = None
    threads: int | None = None
    context: int | None = None
    max_rows: int = 64
    max_step_tokens: int = 2048
    kv_bytes: int | None = None

    def __post_init__(self) -> None:
        for key in ("threads", "context", "max_rows", "max_step_tokens", "kv_bytes"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"{key} must be at least 1, got {value}")


@dataclass(frozen=True, slots=True)
class Placed:
    """Open models on their lanes; `context` is the smallest of the models' limits and the one asked for."""

    lanes: list[Lane]
    choice: Choice
    threads: int
    context: int


def place(bundle: Path, manifest: Manifest, wanted: Placement, vocabulary: Vocabulary, contents: Contents) -> Placed:
    """Open every model. Raises ConfigError, MachineError or BundleError."""
    same_tokenizer(bundle, manifest)
    experts = {expert.name: expert.weights for expert in manifest.experts}
    value = manifest.value if manifest.value and manifest.value.weights else None
    models = experts | ({value.name: value.weights} if value else {})
    choice = choose_provider(targets(manifest, models), wanted.provider, allow_fallback=wanted.allow_fallback)
    devices = devices_for(choice.provider, wanted.devices, len(models))
    threads = wanted.threads or max(1, cores() // len(devices))
    opened = {
        name: open_model(bundle, manifest, name, models[name], choice.provider, device, threads)
        for device, names in deal(list(models), devices).items()
        for name in names
    }
    context = min([wanted.context or 1 << 30, *(model.kv.max_length for model in opened.values())])
    limits = {name: limits_of(model.kv, wanted, context, len(opened)) for name, model in opened.items()}
    lanes: dict[Device, dict[str, Engine]] = {device: {} for device in devices}
    for name, model in opened.items():
        lanes[model.device][name] = _engine(model, value, vocabulary, contents, limits[name], context)
    return Placed([Lane(str(device), engines) for device, engines in lanes.items()], choice, threads, context)


def _engine(
    model: Model, value: ValueEntry | None, vocabulary: Vocabulary, contents: Contents, limits: Limits, context: int
) -> Engine:
    if value and model.name == value.name:
        return ValueEngine(model, value, contents, limits, context)
    return ExpertEngine(model, vocabulary, contents, limits, context)


def targets(manifest: Manifest, models: Mapping[str, Sequence[Weights]]) -> list[str]:
    """The providers for which every model has a graph."""
    each: list[set[str]] = [
        {provider for entry in weights for provider in manifest.graph(entry.graph).providers}
        for weights in models.values()
    ]
    return sorted(set.intersection(*each))


def devices_for(provider: str, names: Sequence[str] | None, models: int) -> list[Device]:
    """The devices asked for, or all that are worth a thread. Raises ConfigError where they are not the provider's."""
    kind = next(short for short, full in SHORT.items() if full == provider)
    if names is None:
        return [Device(kind, index) for index in range(min(cores(), models) if provider == CPU else 1)]
    devices = [Device.parse(name) for name in names]
    if not devices or len(set(devices)) < len(devices):
        raise ConfigError(f"devices: each must be there once, got {', '.join(names) or 'none'}")
    if wrong := [str(device) for device in devices if device.kind != kind]:
        raise ConfigError(f"devices: {wrong[0]} does not run {provider}; give {kind}:0, {kind}:1, ...")
    return devices


def deal(models: Sequence[str], devices: Sequence[Device]) -> dict[Device, list[str]]:
    """Neighbours stay together; the first devices get one more where it does not come out even."""
    share, more = divmod(len(models), len(devices))
    dealt, start = {}, 0
    for index, device in enumerate(devices):
        size = share + (index >= len(devices) - more)
        dealt[device] = list(models[start : start + size])
        start += size
    return dealt


def limits_of(kv: KVLayout, wanted: Placement, context: int, models: int) -> Limits:
    """What one model's batch may hold, within its share of the memory. Raises ConfigError where nothing fits."""
    budget = wanted.kv_bytes or int(MEMORY_SHARE * psutil.virtual_memory().available)
    affordable = budget // models // (kv.bytes_per_token * BLOCK)
    blocks = min(affordable, wanted.max_rows * -(-context // BLOCK))
    if blocks < 1:
        raise ConfigError(f"kv_bytes: {budget} bytes for {models} models do not hold {BLOCK} tokens of each")
    return Limits(
        blocks, BLOCK, wanted.max_rows, max(wanted.max_step_tokens, wanted.max_rows), paged=False, prefix_caching=False
    )


def same_tokenizer(bundle: Path, manifest: Manifest) -> None:
    """All models read the same tokens of a query. Raises BundleError where their tokenizers differ."""
    folders = [expert.folder for expert in manifest.experts]
    if manifest.value:
        folders.append(manifest.value.folder)
    hashes = {entry.path: entry.sha256 for entry in manifest.files}
    found = {folder: hashes.get(f"{folder}/tokenizer.json") for folder in folders}
    first = folders[0]
    for folder, digest in found.items():
        if digest is not None and digest != found[first]:
            raise BundleError(f"{bundle}: the tokenizers of {first} and {folder} differ; all models must share one")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
