"""Opens a bundle's models and places them on devices: what runs where, with how much memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from octavo.profiles.errors import BundleError, ConfigError
from octavo.profiles.manifest import Manifest, ValueEntry, Weights
from octavo.runtime.budget import BLOCK, budgets, limits_of, longest, rows_within, unbounded
from octavo.runtime.contents import Contents
from octavo.runtime.engine import Engine
from octavo.runtime.lane import Lane
from octavo.runtime.ort.classifier import Prefilled, Scores, Whole
from octavo.runtime.ort.engine import ExpertEngine
from octavo.runtime.ort.kernels import STOCK
from octavo.runtime.ort.providers import CPU, SHORT, TENSORRT, Choice, choose_provider
from octavo.runtime.ort.session import Device, Model, open_model, runnable
from octavo.runtime.rereading import Reader, RereadingEngine
from octavo.runtime.text import Vocabulary
from octavo.runtime.trial import SMALLEST, Layout, layouts, quickest
from octavo.runtime.trouble import told
from octavo.runtime.value import ValueEngine, probability

Names = tuple[str, ...]
ENDLESS = 1 << 40  # tokens; where no model counts any


@dataclass(frozen=True, slots=True)
class Placement:
    """How to run a bundle.

    `devices` (cpu:0, cpu:1, cuda:0, ...) each get a thread, and models are dealt out to them in order; None: one GPU,
    or on the CPU one per core, as far as there are models, or a single one of all cores where a trial of large models
    finds that faster (see `octavo.runtime.trial`). `threads` are those of one model's call; None: what cores are left
    to each device. With either given nothing is tried. `context` are the tokens that a sequence may hold, prompt and
    answer; fewer where the memory for KV has no room for them. `max_rows` and `max_step_tokens` bound a batch.
    `kv_bytes` bounds the KV caches of all models together; None: two fifths of the host's free memory, or four fifths
    of what the weights leave on each GPU, where rows are allocated whole and there are as many as fit.
    Prompts share the KV of equal beginnings in chunks of `prefix_tokens` (a multiple of 16; None: not at all).
    `prepack` keeps the processor's form of the weights in the user's cache folder, where processes share it; `verify`
    checks its hashes.
    `kernels` asks for octavo's own products of matrices on the processor (True), or against them (False); None: where
    they are compiled and fit (see `octavo.runtime.ort.kernels`).
    `cuda_graphs` records each decode call once and replays it, on one GPU with CUDA, not with TensorRT: no other thread
    may call CUDA meanwhile.
    """

    provider: str | None = None
    allow_fallback: bool = False
    devices: Sequence[str] | None = None
    threads: int | None = None
    context: int | None = None
    max_rows: int = 64
    max_step_tokens: int = 2048
    kv_bytes: int | None = None
    prefix_tokens: int | None = 64
    prepack: bool = False
    verify: bool = True
    cuda_graphs: bool = False
    kernels: bool | None = None

    def __post_init__(self) -> None:
        for key in ("threads", "context", "max_rows", "max_step_tokens", "kv_bytes"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"{key} must be at least 1, got {value}")
        if self.prefix_tokens is not None and (self.prefix_tokens < 1 or self.prefix_tokens % BLOCK):
            raise ConfigError(f"prefix_tokens must be a multiple of {BLOCK}, got {self.prefix_tokens}")


@dataclass(frozen=True, slots=True)
class Placed:
    """Open models on their lanes; `context` is the smallest of the models' limits and the one asked for.

    `measured` says that a trial chose the lanes, `kernels` whose products of matrices are used.
    """

    lanes: list[Lane]
    choice: Choice
    threads: int
    context: int
    prefix_tokens: int | None
    measured: bool = False
    kernels: str = STOCK

    @property
    def layout(self) -> str:
        """Lanes and threads in words."""
        return f"{Layout(len(self.lanes), self.threads)}{', measured' * self.measured}"


def place(bundle: Path, manifest: Manifest, wanted: Placement, vocabulary: Vocabulary, contents: Contents) -> Placed:
    """Open every model. Raises ConfigError, MachineError or BundleError."""
    same_tokenizer(bundle, manifest)
    value = manifest.value if manifest.value and manifest.value.weights else None
    weights = {expert.name: expert.weights for expert in manifest.experts}
    weights |= {value.name: value.weights} if value else {}
    able = targets(manifest, weights, named=wanted.provider is not None)
    choice = choose_provider(able, wanted.provider, allow_fallback=wanted.allow_fallback)
    crews = sharing(manifest, weights)
    sessions = Sessions(bundle, manifest, weights, choice.provider, wanted)
    tried = try_out(sessions, crews) if worth_a_trial(sessions, crews) else None
    devices = devices_for(choice.provider, wanted.devices, tried.lanes if tried else len(crews))
    if wanted.cuda_graphs:
        demand_recorder(choice.provider, devices)
    threads = wanted.threads or max(1, cores() // len(devices))
    opened = {
        names: sessions.take(names[0], device, threads)
        for device, theirs in deal(crews, devices).items()
        for names in theirs
    }
    notes = [note for note in (choice.fallback, *(model.fallback for model in opened.values())) if note]
    choice = replace(choice, fallback="; ".join(notes) or None)
    room = budgets([model for model in opened.values() if model.graph.kv], wanted.kv_bytes)
    sharing_tokens = [model for model in opened.values() if not rereads(manifest, model.name)]
    context = min((longest(model, room[model.name], wanted.context) for model in sharing_tokens), default=ENDLESS)
    engine_of = Opener(bundle, manifest, wanted, vocabulary, contents, context, room)
    lanes: dict[Device, dict[str, Engine]] = {device: {} for device in devices}
    for names, model in opened.items():
        with told(f"{names[0]}: its KV cache"):
            lanes[model.device] |= dict.fromkeys(names, engine_of(model, names))
    running = [Lane(str(device), engines) for device, engines in lanes.items()]
    used = ", ".join(dict.fromkeys(model.kernels for model in opened.values()))
    return Placed(running, choice, threads, context, wanted.prefix_tokens, tried is not None, used)


def demand_recorder(provider: str, devices: Sequence[Device]) -> None:
    """Raise ConfigError where calls cannot be recorded as CUDA graphs.

    ONNX Runtime's CUDA provider keeps a graph per `gpu_graph_id`; its TensorRT provider keeps one in all, of whichever
    call comes second, and would answer every other call with it.
    """
    if provider == TENSORRT:
        raise ConfigError("cuda_graphs: TensorRT's provider records a single shape of call; use them with cuda")
    if provider == CPU or len(devices) > 1:
        raise ConfigError(f"cuda_graphs: they need one GPU, not {', '.join(map(str, devices))}")


@dataclass(frozen=True, slots=True)
class Sessions:
    """Opens models by name; what a trial has opened is taken, not opened again."""

    bundle: Path
    manifest: Manifest
    weights: Mapping[str, Sequence[Weights]]
    provider: str
    wanted: Placement
    tried: dict[tuple[str, Device, int], Model] = field(default_factory=dict)

    def open(self, name: str, device: Device, threads: int) -> Model:
        return open_model(
            *(self.bundle, self.manifest, name, self.weights[name], self.provider, device, threads),
            allow_fallback=self.wanted.allow_fallback,
            prepack=self.wanted.prepack,
            capture=self.wanted.cuda_graphs,
            verify=self.wanted.verify,
            kernels=self.wanted.kernels,
        )

    def take(self, name: str, device: Device, threads: int) -> Model:
        return self.tried.pop((name, device, threads), None) or self.open(name, device, threads)

    def bytes(self, name: str) -> int:
        """Of a model's weights on disk."""
        files = {path for entry in self.weights[name] for path in entry.locations.values()}
        return sum(entry.size for entry in self.manifest.files if entry.path in files)


def worth_a_trial(sessions: Sessions, crews: Sequence[Names]) -> bool:
    """Whether the lanes are ours to choose, there is a choice, and a model is large enough for it to matter."""
    ours = sessions.provider == CPU and sessions.wanted.devices is None and sessions.wanted.threads is None
    return ours and len(layouts(cores(), len(crews))) > 1 and sessions.bytes(crews[0][0]) >= SMALLEST


def try_out(sessions: Sessions, crews: Sequence[Names]) -> Layout:
    """The layout that suits the experts; a value model comes after them. Keeps what it opened of that layout."""
    experts = {expert.name for expert in sessions.manifest.experts}

    def open_(layout: Layout) -> list[Model]:
        """The first expert of each lane that has any."""
        dealt = deal(crews, [Device("cpu", index) for index in range(layout.lanes)])
        firsts = {
            device: next((name for name, *_ in theirs if name in experts), None) for device, theirs in dealt.items()
        }
        found = {
            (name, device, layout.threads): sessions.open(name, device, layout.threads)
            for device, name in firsts.items()
            if name
        }
        sessions.tried.update(found)
        return list(found.values())

    models = sum(names[0] in experts for names in crews)
    best = quickest(sessions.manifest, layouts(cores(), len(crews)), models, open_, sessions.wanted.kernels)
    for key in [key for key in sessions.tried if key[2] != best.threads]:
        del sessions.tried[key]
    return best


@dataclass(frozen=True, slots=True)
class Opener:
    """Makes the engine of an open model."""

    bundle: Path
    manifest: Manifest
    wanted: Placement
    vocabulary: Vocabulary
    contents: Contents
    context: int
    room: Mapping[str, int]

    def __call__(self, model: Model, names: Sequence[str]) -> Engine:
        wanted, entry = self.wanted, self.manifest.value
        if entry and rereads(self.manifest, model.name):
            return self.rereading(model, entry)
        length = model.kv.max_length if model.fixed_length else self.context
        limits = limits_of(
            *(model, self.room[model.name], self.context),
            experts=len(names),
            max_rows=wanted.max_rows,
            max_step_tokens=wanted.max_step_tokens,
            prefix_tokens=wanted.prefix_tokens,
        )
        if entry and model.name == entry.name and not entry.head_on_expert:
            return ValueEngine(model, entry, self.contents, limits, length)
        head = partial(probability, entry) if entry and entry.head_on_expert else None
        return ExpertEngine(model, self.vocabulary, self.contents, limits, length, head)

    def rereading(self, model: Model, entry: ValueEntry) -> Engine:
        """The engine of a value model with a tokenizer of its own."""
        assert entry.max_tokens is not None
        reader = Reader(Vocabulary(self.bundle / entry.folder), entry, whole=model.graph.kv is None)
        if model.graph.kv is None:
            scores: Scores = Whole(model, entry.pad_token_id or 0)
        else:
            length = model.kv.max_length if model.fixed_length else entry.max_tokens
            scores = Prefilled(model, length, rows_within(model, self.room[model.name], length))
        limits = unbounded(self.wanted.max_rows, self.wanted.max_step_tokens)
        return RereadingEngine(reader, scores, entry, self.contents, limits)


def rereads(manifest: Manifest, name: str) -> bool:
    """Whether a model is a value model that reads words by a tokenizer of its own."""
    entry = manifest.value
    return entry is not None and entry.reads != "tokens" and entry.name == name


def sharing(manifest: Manifest, weights: Mapping[str, Sequence[Weights]]) -> list[tuple[str, ...]]:
    """Models by who runs them: the adapters of one base together, everybody else alone."""
    crews: dict[str, list[str]] = {}
    for name, entries in weights.items():
        stacked = bool(manifest.graph(entries[0].graph).adapters)
        crews.setdefault(entries[0].model if stacked else name, []).append(name)
    return [tuple(names) for names in crews.values()]


def targets(manifest: Manifest, models: Mapping[str, Sequence[Weights]], *, named: bool = True) -> list[str]:
    """The providers for which every model has a graph; unless one is `named`, only those with kernels for it.

    Whoever names a provider is told what of a graph it cannot run.
    """
    each: list[set[str]] = [
        {
            provider
            for entry in weights
            for graph in [manifest.graph(entry.graph)]
            for provider in (graph.providers if named else runnable(graph))
        }
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


def deal(models: Sequence[Names], devices: Sequence[Device]) -> dict[Device, list[Names]]:
    """Neighbours stay together; the first devices get one more where it does not come out even."""
    share, more = divmod(len(models), len(devices))
    dealt, start = {}, 0
    for index, device in enumerate(devices):
        size = share + (index >= len(devices) - more)
        dealt[device] = list(models[start : start + size])
        start += size
    return dealt


def same_tokenizer(bundle: Path, manifest: Manifest) -> None:
    """All models read the same tokens of a query. Raises BundleError where their tokenizers differ.

    A value model that reads the words anew may have a tokenizer of its own.
    """
    folders = [expert.folder for expert in manifest.experts]
    if manifest.value and manifest.value.reads == "tokens":
        folders.append(manifest.value.folder)
    hashes = {entry.path: entry.sha256 for entry in manifest.files}
    found = {folder: hashes.get(f"{folder}/tokenizer.json") for folder in folders}
    first = folders[0] if folders else None
    for folder, digest in found.items():
        if first is not None and digest is not None and digest != found[first]:
            raise BundleError(f"{bundle}: the tokenizers of {first} and {folder} differ; all models must share one")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
