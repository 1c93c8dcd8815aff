"""What an export will write: which graphs, which models share each, and where every weight goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from octavo.exporters.checkpoint import Checkpoint, open_checkpoint
from octavo.exporters.families import describe
from octavo.exporters.graph import Graph, check_tensors, draw_graph
from octavo.exporters.lora import Adapter, is_adapter, merged, open_adapter, stacked
from octavo.exporters.lowrank import detected, looks_low_rank
from octavo.exporters.package import folder_names
from octavo.exporters.settings import Settings
from octavo.exporters.sharing import shared_weights
from octavo.exporters.spec import Decoder, Head
from octavo.exporters.tensorrt import CACHE_LENGTH
from octavo.exporters.value import SCORE, open_classifier, with_head
from octavo.exporters.weights import Layout, Weight, lay_out
from octavo.exporters.wrapper import language_model
from octavo.profiles.errors import BundleError

OWN = "weights.bin"
SHARED = "shared.bin"


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
        return self.graphs[0].head

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The experts, where they are adapters stacked on the one member."""
        return self.graphs[0].adapters

    @property
    def weights(self) -> list[Weight]:
        return all_weights(self.graphs)

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


Scratch = Callable[[], Path]


def plan(
    experts: Sequence[Path], value: Path | None, settings: Settings, scratch: Scratch, head: Path | None = None
) -> list[Group]:
    """Read every config and header, and decide; `scratch` makes a folder for a graph that has to be traced.

    `head` is the folder of a value head that is added to every expert.

    Raises BundleError before anything is written into the bundle.
    """
    names = folder_names([*experts, *([value] if value else [])])
    alone: dict[Decoder, list[Member]] = {}
    stacks: dict[Path, list[Adapter]] = {}
    foreign: dict[str, tuple[Member, str]] = {}
    for path, name in zip(experts, names, strict=False):
        adapter = _adapter(path, name, settings, scratch)
        if adapter is not None:
            stacks.setdefault(adapter.base.resolve(), []).append(adapter)
            continue
        checkpoint = _opened(path, name, settings)
        member = Member(name, with_head(checkpoint, head) if head else checkpoint)
        decoder = _native(member.checkpoint, settings)
        if isinstance(decoder, Decoder):
            alone.setdefault(decoder, []).append(member)
        else:
            foreign[name] = member, decoder
    drafts = [_Draft(decoder, members) for decoder, members in alone.items()]
    drafts += [_stack(adapters, names, settings, head) for adapters in stacks.values()]
    planned = [_group(draft, index, settings) for index, draft in enumerate(drafts)]
    planned += _traced(list(foreign.values()), len(planned), settings, scratch)
    if value is not None:
        planned.append(_judge(Member(names[-1], open_classifier(value)), settings, scratch))
    return planned


def _judge(member: Member, settings: Settings, scratch: Scratch) -> Group:
    """The value model: drawn where the native route knows it, else traced: a decoder with its cache, others whole."""
    checkpoint = member.checkpoint
    why = "as asked"
    if settings.route != "optimum":
        try:
            decoder = _described(checkpoint, "score", settings)
        except BundleError as error:
            why = str(error)
            if settings.route == "native":
                raise
        else:
            return _group(_Draft(decoder, [member]), 0, settings)
    from octavo.exporters.classifier import traced_classifier
    from octavo.exporters.traced import traced_score
    from octavo.exporters.tracing import CLASSIFICATION, traceable

    family, name = checkpoint.model_type, "value-ort-fp32"
    if settings.lowerings != ["ort"]:
        raise BundleError(f"{why}. Optimum might trace it, but only for the targets cpu and cuda")
    try:
        if SCORE in checkpoint.tensors and traceable(family):
            graph, traced = traced_score(name, checkpoint, settings, scratch())
        elif traceable(family, CLASSIFICATION):
            graph, traced = traced_classifier(name, checkpoint, scratch())
        else:
            raise BundleError(f"Optimum cannot trace {family!r} classifiers either")
    except BundleError as error:
        raise error if why == "as asked" else BundleError(f"{why}. {error}") from None
    return _laid_out((replace(graph, why=why),), [Member(member.folder, traced)])


def all_weights(graphs: Iterable[Graph]) -> list[Weight]:
    """The weights of several graphs; equal names are equal weights."""
    found: dict[str, Weight] = {}
    for weight in (weight for graph in graphs for weight in graph.weights):
        known = found.setdefault(weight.name, weight)
        assert (known.dtype, known.shape, known.sources) == (weight.dtype, weight.shape, weight.sources), weight.name
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Draft:
    """A group before its graphs are drawn."""

    decoder: Decoder
    members: list[Member]
    adapters: tuple[Adapter, ...] = ()


def _adapter(path: Path, name: str, settings: Settings, scratch: Scratch) -> Adapter | None:
    """An expert that is to be stacked on its base; None for one that gets weights of its own."""
    if is_adapter(path):
        return None if settings.lora == "merged" else open_adapter(path, name, settings.base)
    if settings.lora == "detect" and settings.base is not None:
        return detected(path, name, settings.base, scratch())
    return None


def unused_low_rank(experts: Sequence[Path], settings: Settings) -> list[Path]:
    """Full checkpoints that look like `base` and something of low rank, which nobody asked to detect.

    Where no base is named, the first of the checkpoints stands for it.
    """
    full = [path for path in experts if not is_adapter(path)]
    if settings.lora == "detect" or (settings.base is None and len(full) < 3):
        return []
    base, others = (full[0], full[1:]) if settings.base is None else (settings.base, full)
    if not others:
        return []
    opened = open_checkpoint(base)
    return [path for path in others if looks_low_rank(opened, open_checkpoint(path))]


def _opened(path: Path, name: str, settings: Settings) -> Checkpoint:
    return (
        merged(open_adapter(path, name, settings.base)) if is_adapter(path) else language_model(open_checkpoint(path))
    )


def _stack(adapters: list[Adapter], names: Sequence[str], settings: Settings, head: Path | None) -> _Draft:
    """Adapters on one base: one model, of which they are the experts."""
    checkpoint = with_head(stacked(adapters), head) if head else stacked(adapters)
    folder = folder_names([*map(Path, names), checkpoint.folder])[-1]
    return _Draft(_described(checkpoint, "logits", settings), [Member(folder, checkpoint)], tuple(adapters))


def _described(checkpoint: Checkpoint, head: Head, settings: Settings) -> Decoder:
    try:
        return describe(checkpoint.config, head, settings.max_length)
    except BundleError as error:
        raise BundleError(f"{checkpoint.folder}: {error}") from None


def _native(checkpoint: Checkpoint, settings: Settings) -> Decoder | str:
    """The description for the native route, or why Optimum must trace. Raises BundleError when neither can."""
    if settings.route == "optimum":
        return "as asked"
    try:
        return _described(checkpoint, "logits", settings)
    except BundleError as error:
        if settings.route == "native":
            raise
        if why := settings.untraceable(checkpoint.model_type):
            raise BundleError(f"{error}. {why}") from None
        return str(error)


def _group(draft: _Draft, index: int, settings: Settings) -> Group:
    decoder, members, adapters = draft.decoder, draft.members, draft.adapters
    graphs = tuple(
        draw_graph(
            _graph_name(decoder.head, index, lowering, settings),
            decoder,
            lowering,
            settings.precision,
            settings.outputs,
            settings.activations,
            adapters,
            settings.max_length or CACHE_LENGTH,
            settings.kv,
        )
        for lowering in settings.lowerings
    )
    for graph in graphs:
        for member in members:
            check_tensors(graph, member.checkpoint.tensors, str(member.checkpoint.folder))
    return _laid_out(graphs, members)


def _traced(members: list[tuple[Member, str]], first: int, settings: Settings, scratch: Scratch) -> list[Group]:
    """Each member's own traced graph; members whose graphs are alike share one. With each comes why it is traced."""
    from octavo.exporters.traced import traced_graph

    groups: dict[bytes, Group] = {}
    for member, why in members:
        name = _graph_name("logits", first + len(groups), "ort", settings)
        try:
            graph, checkpoint = traced_graph(name, member.checkpoint, settings, scratch())
        except BundleError as error:
            raise error if settings.route == "optimum" else BundleError(f"{why}. {error}") from None
        graph = replace(graph, why=why)
        replaced, alike = Member(member.folder, checkpoint), graph.net.fingerprint()
        earlier = groups.get(alike)
        groups[alike] = _laid_out(
            earlier.graphs if earlier else (graph,), [*(earlier.members if earlier else ()), replaced]
        )
    return list(groups.values())


def _laid_out(graphs: tuple[Graph, ...], members: Sequence[Member]) -> Group:
    weights = all_weights(graphs)
    shared = shared_weights(weights, [member.checkpoint for member in members])
    layout = lay_out(weights, lambda weight: SHARED if weight.name in shared else OWN)
    return Group(graphs, tuple(members), layout)


def _graph_name(head: Head, index: int, lowering: str, settings: Settings) -> str:
    stem = ("value" if head == "score" else "decoder") + (f"-{index + 1}" if index else "")
    kv = "-kv-int8" if settings.kv == "int8" else ""
    return f"{stem}-{lowering}-{settings.precision}{kv}"
