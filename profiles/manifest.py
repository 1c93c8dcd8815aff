"""The bundle's manifest: what an export wrote, file by file, and what was proven of it."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from octavo.profiles.errors import BundleError

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1

Lowering = Literal["ort", "tensorrt"]
Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
KVPrecision = Literal["model", "int8"]
Reads = Literal["tokens", "text", "pair", "chat"]
READS: dict[Reads, str] = {
    "tokens": "the experts' tokens",
    "text": "prompt and answer as one text",
    "pair": "prompt and answer as a pair",
    "chat": "prompt and answer as a conversation",
}
Stored = Literal["fp32", "fp16", "bf16", "int8"]
STORED: dict[str, Stored] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileEntry(_Entry):
    """One regular file of the bundle; `path` is relative to the bundle, with forward slashes."""

    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\\" in path or not path:
            raise ValueError(f"{path!r} must be a relative path inside the bundle")
        return path


class TensorEntry(_Entry):
    """A graph input or output; a dimension is a size or the name of a symbol."""

    name: str
    dtype: str
    shape: list[int | str]


class KVLayout(_Entry):
    """The KV cache of one decoder: per layer a key and a value of [batch, kv_heads, length, head_dim]."""

    layers: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    dtype: str
    shared_buffer: bool = Field(description="past and present may be the same memory")
    max_length: int = Field(gt=0, description="tokens; the model's context limit")
    scales: Literal["channel"] | None = Field(
        default=None, description="of a cache in int8: one factor per head and channel, among each expert's weights"
    )

    @property
    def precision(self) -> Stored:
        """What a scenario calls `engine.kv_precision`."""
        return STORED[self.dtype]

    @property
    def bytes_per_token(self) -> int:
        item = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}[self.dtype]
        return 2 * self.layers * self.kv_heads * self.head_dim * item


class Build(_Entry):
    """A trial build of a graph by TensorRT's builder, with the graph's own profiles; nothing was run."""

    library: str
    seconds: float = Field(ge=0)
    engine_bytes: int = Field(ge=0)
    passed: bool
    error: str | None = Field(default=None, description="the first, with its node")


class GraphEntry(_Entry):
    """One ONNX graph; every expert of the same architecture and precision runs it with weights of its own."""

    name: str
    role: Literal["decoder", "value"]
    lowering: Lowering
    precision: Precision
    opset: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of model.onnx, equal for all that share the graph")
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]
    kv: KVLayout | None = None
    route: Literal["native", "optimum"] = Field(default="native", description="who drew it")
    adapters: list[str] = Field(default_factory=list, description="expert of each value of the input `adapter_ids`")
    providers: list[Provider] = Field(description="what the graph is written for")
    checked: list[str] = Field(default_factory=list, description="which checks it passed, in words")
    build: Build | None = Field(default=None, description="of a graph for TensorRT, where it was asked for")
    trt_profiles: dict[str, str] = Field(default_factory=dict, description="trt_profile_{min,opt,max}_shapes")
    trt_options: dict[str, str] = Field(default_factory=dict, description="provider options: engine and timing caches")
    trt_refit_options: dict[str, str] = Field(
        default_factory=dict, description="instead: engines without weights, each refitted with its own expert's"
    )
    trt_context_options: dict[str, str] = Field(
        default_factory=dict, description="instead: keep built engines in an EP-context model beside the graph"
    )


class Parity(_Entry):
    """How far an exported model is from the original, over teacher-forced positions."""

    reference: str
    positions: int = Field(ge=0)
    max_abs_error: float = Field(ge=0, description="of a logit")
    max_score_error: float | None = Field(default=None, ge=0, description="of a value head's logit, where there is one")
    mean_kl: float = Field(ge=0, description="nats, original || exported")
    top1_agreement: float = Field(ge=0, le=1)
    top1_agreement_with_margin: float = Field(
        ge=0, le=1, description="where the original's margin exceeds the tolerance"
    )
    greedy_equal: bool | None = Field(default=None, description="greedy continuations equal; asked of fp32 only")
    passed: bool


class Weights(_Entry):
    """The files that a graph's external data come from, for one model.

    `graph` names the GraphEntry, `model` the bundle path of the model.onnx, `locations` maps each external-data
    location written in the graph to the bundle path of the file that holds it.
    """

    graph: str
    model: str
    locations: dict[str, str]
    parity: Parity | None = None


class ExpertEntry(_Entry):
    """One expert: a folder with its config and tokenizer, and weights for each graph that it can run."""

    name: str
    folder: str
    model_type: str
    source: str = Field(description="the checkpoint it was exported from, as given")
    parameters: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    weights: list[Weights]
    adapter: str | None = Field(default=None, description="row name in the LoRA-stacked graph, where it is one")


class ValueEntry(_Entry):
    """The value model: its score is sigmoid(scale * logit + shift), a probability of being right."""

    name: str = "value"
    folder: str
    model_type: str
    source: str
    parameters: int = Field(gt=0)
    head_on_expert: bool = Field(default=False, description="the head reads the experts' own last hidden state")
    weights: list[Weights] = Field(default_factory=list)
    scale: float = 1.0
    shift: float = 0.0
    calibration: dict[str, float] = Field(default_factory=dict)
    reads: Reads = Field(
        default="tokens",
        description="of prompt and answer: the experts' tokens; or, by a tokenizer of its own, their text as one, as a "
        "pair, or as its chat template has it",
    )
    max_tokens: int | None = Field(
        default=None, gt=0, description="of what it reads by a tokenizer of its own: beyond, the prompt loses its start"
    )
    pad_token_id: int | None = Field(default=None, ge=0, description="what its batches are padded with")

    @property
    def reading(self) -> str:
        """What it reads, in words."""
        own = f", at most {self.max_tokens} tokens of its own tokenizer" if self.max_tokens else ""
        return f"{READS[self.reads]}{own}"


class EnsembleDefaults(_Entry):
    """What `octavo ask` does when nothing else is said."""

    policy: str = "ensemble"
    samples_per_expert: int = Field(default=2, gt=0)
    temperature: float = Field(default=1.0, ge=0)
    max_new_tokens: int = Field(default=256, gt=0)


class Manifest(_Entry):
    """Everything a reader may believe about a bundle without opening its ONNX files."""

    schema_version: int = SCHEMA_VERSION
    name: str
    created_by: dict[str, str] = Field(description="versions of the exporter and its libraries")
    graphs: list[GraphEntry]
    experts: list[ExpertEntry] = Field(min_length=1)
    value: ValueEntry | None = None
    defaults: EnsembleDefaults = EnsembleDefaults()
    verified: bool = Field(description="false when the parity gate was switched off")
    files: list[FileEntry]

    def graph(self, name: str) -> GraphEntry:
        return next(graph for graph in self.graphs if graph.name == name)

    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle folder, unverified. Raises BundleError naming the file and each wrong key."""
    path = bundle / MANIFEST_NAME
    if not bundle.is_dir():
        raise BundleError(f"{bundle}: no such bundle folder; `octavo export` writes one")
    if not path.is_file():
        raise BundleError(f"{bundle}: no {MANIFEST_NAME} in it, so it is not a bundle; `octavo export` writes one")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
        raise BundleError(f"{path}: {wrong}") from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise BundleError(f"{path}: schema_version {manifest.schema_version}, this octavo reads {SCHEMA_VERSION}")
    return manifest


def verify_bundle(bundle: Path, *, hashes: bool = True) -> Manifest:
    """Check that the bundle holds exactly what its manifest lists: regular files, no links, sizes and hashes equal.

    Call it before any file is handed to ONNX Runtime. Raises BundleError with the first file that is wrong.
    """
    manifest = read_manifest(bundle)
    listed = {entry.path: entry for entry in manifest.files}
    for entry in manifest.files:
        _verify_file(bundle, entry, hashes=hashes)
    for found in bundle.rglob("*"):
        name = found.relative_to(bundle).as_posix()
        if found.is_symlink() or (not found.is_dir() and name != MANIFEST_NAME and name not in listed):
            raise BundleError(f"{bundle}: {name} is not in the manifest; a bundle holds only what its manifest lists")
    _verify_references(bundle, manifest, set(listed))
    return manifest


def _verify_file(bundle: Path, entry: FileEntry, *, hashes: bool) -> None:
    path = bundle / entry.path
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{bundle}: {entry.path} is {'a link' if path.is_symlink() else 'missing'}")
    stat = path.stat()
    if stat.st_nlink != 1:
        raise BundleError(f"{bundle}: {entry.path} is a hard link; copy the bundle's files, don't link them")
    if stat.st_size != entry.size:
        raise BundleError(f"{bundle}: {entry.path} has {stat.st_size} bytes, the manifest says {entry.size}")
    if hashes and sha256_of(path) != entry.sha256:
        raise BundleError(f"{bundle}: {entry.path} was changed: its sha256 is not the manifest's")


def _verify_references(bundle: Path, manifest: Manifest, listed: set[str]) -> None:
    graphs = {graph.name for graph in manifest.graphs}
    value_weights = manifest.value.weights if manifest.value else []
    for weights in [*(weights for expert in manifest.experts for weights in expert.weights), *value_weights]:
        if weights.graph not in graphs:
            raise BundleError(f"{bundle}: weights name graph {weights.graph!r}, the manifest has {sorted(graphs)}")
        for path in (weights.model, *weights.locations.values()):
            if path not in listed:
                raise BundleError(f"{bundle}: {path} is used but not listed in the manifest")
