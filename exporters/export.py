"""`export_bundle`: checkpoints in, one verified bundle out."""

from __future__ import annotations

import errno
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.exporters.calibrate import calibrate
from octavo.exporters.checkpoint import stored_tensors
from octavo.exporters.dialect import older
from octavo.exporters.graph import Graph
from octavo.exporters.journal import member_key, note_finished, read_finished
from octavo.exporters.longrope import border, stretched
from octavo.exporters.lora import is_adapter
from octavo.exporters.outputs import Outputs
from octavo.exporters.package import Workshop, companion, copy_companions
from octavo.exporters.plan import OWN, SHARED, Group, Member, plan, unused_low_rank
from octavo.exporters.progress import ExportProgress, Stage, silent
from octavo.exporters.reading import Reading
from octavo.exporters.rereading import Rereading, rereading
from octavo.exporters.rtx import check_build, check_installed
from octavo.exporters.settings import Lora, Settings
from octavo.exporters.value import HEAD_NAME, is_head, read_calibration
from octavo.exporters.vocabulary import TOKENIZER_NAME, compare
from octavo.exporters.weights import write_weights
from octavo.profiles.errors import ConfigError, MachineError, OctavoError
from octavo.profiles.manifest import (
    EnsembleDefaults,
    ExpertEntry,
    GraphEntry,
    KVPrecision,
    Manifest,
    Parity,
    Precision,
    Reads,
    ValueEntry,
    Weights,
)

if TYPE_CHECKING:
    from octavo.exporters.verify import Verifier

HEAD_TYPE = "value_head"
LIBRARIES = ("octavo", "onnx-ir", "onnxruntime-gpu", "onnxruntime", "transformers", "torch")


def export_bundle(
    experts: Sequence[Path],
    out: Path,
    *,
    value: Path | None = None,
    value_reads: Reads | None = None,
    name: str | None = None,
    targets: Sequence[str] = ("cpu",),
    precision: Precision = "fp32",
    kv: KVPrecision = "model",
    route: str = "auto",
    verify: bool = True,
    parity_text: Path | None = None,
    top_k: int | None = None,
    hidden: bool = False,
    max_length: int | None = None,
    lora: Lora = "stacked",
    base: Path | None = None,
    check_build: bool = False,
    defaults: EnsembleDefaults | None = None,
    overwrite: bool = False,
    progress: Callable[[ExportProgress], None] = silent,
) -> Manifest:
    """Export checkpoints (Hugging Face folders) and perhaps a value model into the bundle folder `out`.

    The bundle appears whole or not at all: it is made in a hidden sibling folder and renamed. An export that was
    interrupted leaves that folder, and the next one keeps the models that it finds finished and intact.

    With `kv="int8"` the KV cache is in int8, by scales that are measured on text (for the target cpu alone).
    `max_length` limits the context (tokens), `top_k` replaces the logits by the k largest, `parity_text` is a file of
    real text to compare each model with its original on. Experts may be PEFT folders: adapters of one base are stacked
    on it, to be picked row by row, or merged into it; `base` overrides the base that they name. With `lora="detect"`,
    full checkpoints that are `base` and something of low rank are stacked on it as well. `value` may also be a
    folder with a `value_head.safetensors`, a head over the experts' own last hidden state; `value_reads` says what a
    value model reads: see `octavo.exporters.rereading`. `check_build` lets
    TensorRT-RTX's builder try every graph for TensorRT, without a GPU.

    Raises ConfigError for wrong arguments, BundleError for a checkpoint that cannot be exported, MachineError for a
    full disk or libraries that are not installed, GateError when a model is not equal to its original within the
    precision's tolerance, or TensorRT does not build its graph.
    """
    if not experts:
        raise ConfigError("experts: at least one checkpoint folder is needed")
    if check_build:
        _buildable(targets)
    head = value if value is not None and is_head(value) else None
    settings = Settings(targets, precision, Outputs(top_k, hidden, head is not None), max_length, lora, base, route, kv)
    progress(ExportProgress("plan", None, 0, 1))
    workshop = Workshop(out, overwrite=overwrite)
    reading = Reading(parity_text)
    verifier = _verifier(settings, reading) if verify else None
    with ExitStack() as stack:

        def scratch() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="octavo-")))

        groups = plan(experts, None if head else value, settings, scratch, head)
        judges = [group for group in groups if group.head == "score"]
        tokenizers = _tokenizers([group for group in groups if group.head != "score"])
        reads = [rereading(group, tokenizers, value_reads) for group in judges]
        if value_reads is not None and not judges:
            raise ConfigError("value_reads: there is no value model that reads by itself")
        alike = [group for group, its in zip(judges, reads, strict=True) if its.reads == "tokens"]
        vocabulary = compare(tokenizers | _tokenizers(alike))
        told = [*_told(groups, settings), *_advice(groups, experts, settings), vocabulary.note]
        told += [note for group, its in zip(judges, reads, strict=True) for note in its.told(group.members[0].folder)]
        progress(ExportProgress("plan", None, 0, 1, "\n".join(filter(None, told))))
        workshop.open(sum(group.bytes for group in groups), {m.folder for group in groups for m in group.members})
        try:
            parts = workshop, settings, reading, verifier, progress, groups, head, check_build, vocabulary.common
            export = _Export(*parts, next(iter(reads), None))
            return export.run(name or out.name, defaults)
        except OctavoError:
            workshop.discard()
            raise
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            kept = "what is finished is kept: make room, and run the same command again"
            raise MachineError(f"{out.parent}: no space left on the disk; {kept}") from None


def _tokenizers(groups: Sequence[Group]) -> dict[str, Path]:
    """The tokenizer file of each model that has one, by the model's name."""
    models = [
        (name, member.checkpoint, folder)
        for group in groups
        for member in group.members
        for name, folder in _named(group, member)
    ]
    found = {name: companion(TOKENIZER_NAME, checkpoint, folder) for name, checkpoint, folder in models}
    return {name: path for name, path in found.items() if path is not None}


def _named(group: Group, member: Member) -> list[tuple[str, Path | None]]:
    """The experts that a member stands for, each with its adapter's folder, or the model itself."""
    return [(adapter.name, adapter.folder) for adapter in group.adapters] or [(member.folder, None)]


def _told(groups: Sequence[Group], settings: Settings) -> Iterator[str]:
    """What a reader would not expect: models that are traced, and why, and contexts shorter than asked for."""
    for group in groups:
        names, graph = ", ".join(member.folder for member in group.members), group.graphs[0]
        if graph.route == "optimum":
            length = f"context of {graph.kv.max_length} tokens" if graph.kv else "read whole, without a cache"
            yield f"{names}: traced by Optimum in fp32, {length}: {graph.why}"
        config = older(group.members[0].checkpoint.config)
        if graph.decoder and (edge := border(config)):
            yield _table_told(names, edge, long=stretched(config, settings.max_length) != config)
        if graph.kv and settings.max_length and graph.kv.max_length < settings.max_length:
            yield f"{names}: context of {graph.kv.max_length} tokens, its own, of the {settings.max_length} asked for"


def _table_told(names: str, edge: int, *, long: bool) -> str:
    if long:
        return f"{names}: LongRoPE's long factors for texts of any length; transformers takes short ones up to {edge}"
    return (
        f"{names}: LongRoPE's short factors, context of {edge} tokens at most; --max-length beyond takes the long ones"
    )


def _advice(groups: Sequence[Group], experts: Sequence[Path], settings: Settings) -> Iterator[str]:
    """What was found about experts that are, or might be, low-rank changes of one base."""
    found = [adapter for group in groups for adapter in group.adapters if adapter.whole]
    if found:
        ranks = [max(delta.rank for delta in adapter.deltas.values()) for adapter in found]
        named = ", ".join(f"{adapter.name} (rank {rank})" for adapter, rank in zip(found, ranks, strict=True))
        yield f"stacked on {found[0].base}: {named}"
    unused = unused_low_rank(experts, settings)
    named = ", ".join(path.name for path in unused)
    if unused and settings.base is not None:
        yield f"{named}: seems to be the base and something of low rank; --lora detect would store the base once"
    elif len(unused) > 1:
        first = next(path.name for path in experts if not is_adapter(path))
        what = f"--lora detect --base MODEL, that all were tuned from (or {first}), would store it once"
        yield f"{named}: seems to differ from {first} by something of low rank; {what}"


def _buildable(targets: Sequence[str]) -> None:
    """Raise where no graph could be built: before hours of export, not after."""
    if "tensorrt" not in targets:
        raise ConfigError(f"check_build: of the targets {', '.join(targets)} none is tensorrt")
    check_installed()


def _verifier(settings: Settings, reading: Reading) -> Verifier:
    """Imported here: writing a bundle needs neither torch nor transformers, comparing it with its originals does."""
    from octavo.exporters.verify import Verifier

    return Verifier(settings, reading)


@dataclass(slots=True)
class _Export:
    """One export under way."""

    workshop: Workshop
    settings: Settings
    reading: Reading
    verifier: Verifier | None
    progress: Callable[[ExportProgress], None]
    groups: list[Group]
    head: Path | None = None
    check_build: bool = False
    tokenizer: bytes | None = None
    rereading: Rereading | None = None
    graphs: list[GraphEntry] = field(default_factory=list)
    experts: list[ExpertEntry] = field(default_factory=list)
    value: ValueEntry | None = None
    done: int = 0

    def run(self, name: str, defaults: EnsembleDefaults | None) -> Manifest:
        for group in self.groups:
            self.write_group(group)
        if self.head is not None:
            self.value = self.head_entry(self.head)
        self.tell("files", None)
        manifest = Manifest(
            name=name,
            created_by=_versions(),
            graphs=self.graphs,
            experts=self.experts,
            value=self.value,
            defaults=defaults or EnsembleDefaults(),
            verified=self.verifier is not None,
            files=self.workshop.file_entries(),
        )
        self.workshop.publish(manifest)
        self.tell("done", None)
        return manifest

    def write_group(self, group: Group) -> None:
        """The group's graphs and shared weights once, then each model's own."""
        self.tell("graph", None, ", ".join(f"{graph.name} ({graph.route})" for graph in group.graphs))
        models = {graph.name: graph.serialize(group.layout) for graph in group.graphs}
        entries = [graph.entry(models[graph.name]) for graph in group.graphs]
        if SHARED in group.layout.sizes:
            path = self.workshop.folder / group.shared_path
            path.parent.mkdir(exist_ok=True)
            hashed = write_weights(path, group.weights, group.layout, SHARED, group.members[0].checkpoint)
            self.workshop.hashes[group.shared_path] = hashed
        for number, member in enumerate(group.members):
            weights = self.finish_member(group, member, models)
            if self.check_build and number == 0:
                entries = [self.built(entry, mine) for entry, mine in zip(entries, weights, strict=False)]
            self.enter(group, member, weights)
        self.graphs += entries

    def built(self, graph: GraphEntry, weights: Weights) -> GraphEntry:
        """A graph for TensorRT with what its builder said of it; all models that share the graph share the verdict."""
        if graph.lowering != "tensorrt":
            return graph
        self.tell("build", None, graph.name)
        return graph.model_copy(update={"build": check_build(self.workshop.folder, graph, weights)})

    def finish_member(self, group: Group, member: Member, models: dict[str, bytes]) -> list[Weights]:
        """Write and verify a model, unless an interrupted export had done so."""
        bundle, folder = self.workshop.folder, member.folder
        settled = f"{self.settings.precision} {self.verifier is not None}"
        if group.graphs[0].scaled:
            settled += self.reading.digest(group, member)
        key = member_key(member.checkpoint, models, settled, self.tokenizer_of(group))
        weights = read_finished(bundle, folder, key)
        if weights is None:
            shutil.rmtree(bundle / folder, ignore_errors=True)
            weights = self.verified(group, member, self.write_member(group, member, models))
            note_finished(bundle, folder, key, weights, self.workshop.hashes)
        return weights

    def write_member(self, group: Group, member: Member, models: dict[str, bytes]) -> list[Weights]:
        self.tell("weights", member.folder)
        folder = self.workshop.folder / member.folder
        folder.mkdir()
        copy_companions(member.checkpoint, folder, tokenizer=self.tokenizer_of(group))
        hashed = write_weights(folder / OWN, group.weights, group.layout, OWN, member.checkpoint)
        self.workshop.hashes[f"{member.folder}/{OWN}"] = hashed
        for graph in group.graphs:
            (folder / model_name(graph)).write_bytes(models[graph.name])
        if group.graphs[0].scaled:
            self.tell("scales", member.folder)
            calibrate(self.workshop.folder, group, member, self.settings, self.reading.measured(group, member))
            del self.workshop.hashes[f"{member.folder}/{OWN}"]  # of the file before the scales were in it
        locations = group.locations(member)
        return [
            Weights(graph=graph.name, model=f"{member.folder}/{model_name(graph)}", locations=locations)
            for graph in group.graphs
        ]

    def tokenizer_of(self, group: Group) -> bytes | None:
        """The tokenizer file to write in place of a model's own; None: none."""
        own = self.rereading is not None and self.rereading.reads != "tokens" and group.head == "score"
        return None if own else self.tokenizer

    def verified(self, group: Group, member: Member, weights: list[Weights]) -> list[Weights]:
        """The weights with their parity, if it is asked for. Raises GateError."""
        if self.verifier is None:
            return weights
        self.tell("parity", member.folder)
        measured = self.verifier.measure(self.workshop.folder, group, member, weights)
        names = [adapter.name for adapter in group.adapters] or [member.folder]
        for index, parity in enumerate(measured):
            name = names[index // len(weights)]
            self.tell("parity", name, parity=parity)
            self.verifier.gate(name, group, parity)
        repeated = weights * len(names)
        return [entry.model_copy(update={"parity": parity}) for entry, parity in zip(repeated, measured, strict=True)]

    def enter(self, group: Group, member: Member, weights: list[Weights]) -> None:
        """Put a finished model into the manifest."""
        checkpoint = member.checkpoint
        if group.adapters:
            return self.enter_adapters(group, member, weights)
        common: dict[str, Any] = {
            "name": member.folder,
            "folder": member.folder,
            "model_type": checkpoint.model_type,
            "source": str(checkpoint.folder),
            "parameters": checkpoint.parameters,
            "weights": weights,
        }
        if group.head == "score":
            read = self.rereading.entry() if self.rereading else {}
            self.value = ValueEntry(**common, **_calibrated(checkpoint.folder), **read)
        else:
            self.experts.append(ExpertEntry(**common, vocab_size=group.graphs[0].vocab_size))
        self.done += 1
        return None

    def enter_adapters(self, group: Group, member: Member, weights: list[Weights]) -> None:
        """Each adapter is an expert: a folder of its own, and its parity on the graph that all of them share."""
        per_expert = len(group.graphs)
        for index, adapter in enumerate(group.adapters):
            folder = self.workshop.folder / adapter.name
            folder.mkdir(exist_ok=True)
            copy_companions(member.checkpoint, folder, adapter.folder, self.tokenizer)
            mine = weights[index * per_expert : (index + 1) * per_expert] if self.verifier else weights
            expert = ExpertEntry(
                name=adapter.name,
                folder=adapter.name,
                model_type=member.checkpoint.model_type,
                source=str(adapter.folder),
                parameters=member.checkpoint.parameters
                - sum(a.parameters for a in group.adapters)
                + adapter.parameters,
                vocab_size=group.graphs[0].vocab_size,
                weights=mine,
                adapter=adapter.name,
            )
            self.experts.append(expert)
        self.done += 1

    def head_entry(self, folder: Path) -> ValueEntry:
        """A value head has no graph of its own: it is an output of the experts'."""
        return ValueEntry(
            folder=self.experts[0].folder,
            model_type=HEAD_TYPE,
            source=str(folder),
            parameters=next(iter(stored_tensors(folder / HEAD_NAME).values())).size,
            head_on_expert=True,
            **_calibrated(folder),
        )

    def tell(self, stage: Stage, model: str | None, note: str = "", parity: Parity | None = None) -> None:
        total = sum(len(group.members) for group in self.groups)
        self.progress(ExportProgress(stage, model, self.done, total, note, parity))


def _calibrated(folder: Path) -> dict[str, Any]:
    figures = read_calibration(folder)
    return {key: figures[key] for key in ("scale", "shift") if key in figures} | {"calibration": figures}


def model_name(graph: Graph) -> str:
    """File name of a graph in each model's folder."""
    return "model.onnx" if graph.lowering == "ort" else f"model.{graph.lowering}.onnx"


def _versions() -> dict[str, str]:
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
