"""What an export will write: which graphs, which models share each, and where every weight goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octavo.exporters.checkpoint import Checkpoint, open_checkpoint
from octavo.exporters.families import describe
from octavo.exporters.graph import Graph, check_tensors, draw_graph
from octavo.exporters.lora import Adapter, is_adapter, merged, open_adapter, stacked
from octavo.exporters.outputs import Outputs
from octavo.exporters.package import folder_names
from octavo.exporters.sharing import shared_weights
from octavo.exporters.spec import Decoder, Head
from octavo.exporters.weights import Layout, Weight, lay_out
from octavo.profiles.errors import BundleError, ConfigError
from octavo.profiles.manifest import Lowering, Precision

OWN = "weights.bin"
SHARED = "shared.bin"
LOWERINGS: dict[str, Lowering] = {"cpu": "ort", "cuda": "ort", "tensorrt": "tensorrt"}


@dataclass(frozen=True, slots=True)
class Member:
    """One model of the bundle: its checkpoint and the folder that it gets."""

    folder: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Group:
    """Models of one architecture: they run the same graphs, one per lowering, over one layout of weights."""

    graphs: tuple[Graph, ...]
    members: tuple[Member, ...]
    layout: Layout

    @property
    def head(self) -> Head:
        return self.graphs[0].decoder.head

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The experts, where they are adapters stacked on the one member."""
        return self.graphs[0].adapters

    @property
    def weights(self) -> list[Weight]:
        return list(all_weights(self.graphs))

    @property
    def shared_path(self) -> str:
        """Bundle path of the file of shared weights."""
        return f"shared/{self.graphs[0].name}.bin"

    @property
    def bytes(self) -> int:
        """What the group's weights take on disk."""
        return self.layout.sizes.get(SHARED, 0) + len(self.members) * self.layout.sizes.get(OWN, 0)

    def locations(self, member: Member) -> dict[str, str]:
        """Bundle path of the file behind each external-data location."""
        paths = {OWN: f"{member.folder}/{OWN}", SHARED: self.shared_path}
        return {location: paths[location] for location in self.layout.sizes}


@dataclass(frozen=True, slots=True)
class Settings:
    """How the graphs are drawn."""

    targets: Sequence[str]
    precision: Precision
    outputs: Outputs
    max_length: int | None = None
    lora: Literal["stacked", "merged"] = "stacked"
    base: Path | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.targets) - set(LOWERINGS))
        if unknown or not self.targets:
            raise ConfigError(f"targets: {unknown or 'none given'}; choose from {', '.join(LOWERINGS)}")
        if "tensorrt" in self.targets and self.precision not in ("fp16", "bf16"):
            what = f"precision {self.precision}: TensorRT's attention has kernels for fp16 and bf16"
            raise ConfigError(f"{what}; choose one, or export for TensorRT into a bundle of its own")
        if self.precision == "bf16" and "cpu" in self.targets:
            raise ConfigError(
                "precision bf16: the CPU provider has no bfloat16 kernels; choose fp32, fp16, int8 or int4"
            )

    @property
    def activations(self) -> str:
        """What quantized weights are multiplied by: a CPU wants fp32, a GPU fp16."""
        return "fp32" if "cpu" in self.targets else "fp16"

    @property
    def lowerings(self) -> list[Lowering]:
        """In the order of the targets, each once."""
        return list(dict.fromkeys(LOWERINGS[target] for target in self.targets))


def plan(experts: Sequence[Path], value: Path | None, settings: Settings) -> list[Group]:
    """Read every config and header, and decide. Raises BundleError before anything is written."""
    names = folder_names([*experts, *([value] if value else [])])
    alone: dict[Decoder, list[Member]] = {}
    stacks: dict[Path, list[Adapter]] = {}
    for path, name in zip(experts, names, strict=False):
        if is_adapter(path) and settings.lora == "stacked":
            adapter = open_adapter(path, name, settings.base)
            stacks.setdefault(adapter.base.resolve(), []).append(adapter)
        else:
            member = Member(name, _opened(path, name, settings))
            alone.setdefault(_described(member.checkpoint, "logits", settings), []).append(member)
    drafts = [_Draft(decoder, members) for decoder, members in alone.items()]
    drafts += [_stack(adapters, names, settings) for adapters in stacks.values()]
    planned = [_group(draft, index, settings) for index, draft in enumerate(drafts)]
    if value is not None:
        member = Member(names[-1], open_checkpoint(value))
        planned.append(_group(_Draft(_described(member.checkpoint, "score", settings), [member]), 0, settings))
    return planned


@dataclass(frozen=True, slots=True)
class _Draft:
    """A group before its graphs are drawn."""

    decoder: Decoder
    members: list[Member]
    adapters: tuple[Adapter, ...] = ()


def _opened(path: Path, name: str, settings: Settings) -> Checkpoint:
    return merged(open_adapter(path, name, settings.base)) if is_adapter(path) else open_checkpoint(path)


def _stack(adapters: list[Adapter], names: Sequence[str], settings: Settings) -> _Draft:
    """Adapters on one base: one model, of which they are the experts."""
    checkpoint = stacked(adapters)
    folder = folder_names([*map(Path, names), checkpoint.folder])[-1]
    return _Draft(_described(checkpoint, "logits", settings), [Member(folder, checkpoint)], tuple(adapters))


def all_weights(graphs: Iterable[Graph]) -> Iterable[Weight]:
    """The weights of several graphs; equal names are equal weights."""
    return {weight.name: weight for graph in graphs for weight in graph.weights}.values()


def _described(checkpoint: Checkpoint, head: Head, settings: Settings) -> Decoder:
    try:
        return describe(checkpoint.config, head, settings.max_length)
    except BundleError as error:
        raise BundleError(f"{checkpoint.folder}: {error}") from None


def _group(draft: _Draft, index: int, settings: Settings) -> Group:
    decoder, members, adapters = draft.decoder, draft.members, draft.adapters
    stem = ("value" if decoder.head == "score" else "decoder") + (f"-{index + 1}" if index else "")
    precision = settings.precision
    graphs = tuple(
        draw_graph(
            f"{stem}-{lowering}-{precision}",
            decoder,
            lowering,
            precision,
            settings.outputs,
            settings.activations,
            adapters,
        )
        for lowering in settings.lowerings
    )
    for graph in graphs:
        for member in members:
            stored = {name: tensor.shape for name, tensor in member.checkpoint.tensors.items()}
            check_tensors(graph, stored, str(member.checkpoint.folder))
    weights = list(all_weights(graphs))
    shared = shared_weights(weights, [member.checkpoint for member in members])
    layout = lay_out(weights, lambda weight: SHARED if weight.name in shared else OWN)
    return Group(graphs, tuple(members), layout)
