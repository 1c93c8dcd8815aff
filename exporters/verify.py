"""Verification of freshly written models against their originals, before a bundle gets its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from octavo.exporters.checkpoint import Array
from octavo.exporters.graph import Graph
from octavo.exporters.outputs import VALUE_HEAD
from octavo.exporters.parity import (
    Original,
    Played,
    Task,
    Tolerance,
    ask,
    gate,
    greedy_equal,
    measure,
    run,
    tolerance_of,
)
from octavo.exporters.plan import Group, Member
from octavo.exporters.player import SMALL, Player, classify
from octavo.exporters.reading import Reading
from octavo.exporters.reference import open_reference
from octavo.exporters.settings import Settings
from octavo.exporters.twin import runnable
from octavo.profiles.errors import BundleError, GateError, OctavoError
from octavo.profiles.manifest import GraphEntry, Parity, Precision, Weights

ROWS_AGAIN, AGAIN = 2, 24  # sequences, and tokens of each, read by a further model of a graph that is proven
GREEDY, GREEDY_AGAIN = 16, 4  # tokens that the first and the further models write


class Verifier:
    """Compares models with their originals; holds one original or one exported model at a time, never both."""

    def __init__(self, settings: Settings, reading: Reading):
        self._precision = settings.precision
        self._reading = reading
        self._max_length = settings.max_length
        self._proven: set[str] = set()

    def measure(self, bundle: Path, group: Group, member: Member, weights: Sequence[Weights]) -> list[Parity]:
        """Parity of each of a model's graphs; of stacked adapters, of each adapter's graphs, one after another.

        What the CPU has no kernels for is measured on its fp32 twin.
        """
        if not group.adapters:
            checkpoint = member.checkpoint
            return self._measure(bundle, group, member, weights, checkpoint.folder, checkpoint.base)
        return [
            parity
            for row, adapter in enumerate(group.adapters)
            for parity in self._measure(
                bundle, group, member, weights, adapter.folder, None if adapter.whole else adapter.base, row
            )
        ]

    def _measure(
        self,
        bundle: Path,
        group: Group,
        member: Member,
        weights: Sequence[Weights],
        original_folder: Path,
        base: Path | None,
        adapter: int = 0,
    ) -> list[Parity]:
        if group.graphs[0].kv is None:
            return [self._whole(bundle, group, member, weights[0])]
        task = self._task(group, member)
        tolerance = self._tolerance(group)
        played = []
        for graph, entry in zip(group.graphs, weights, strict=True):
            with runnable(bundle, graph, member.checkpoint, entry) as (folder, model, files), _running(graph, member):
                played.append(run(_player(folder, files, model, task, adapter, member), task))
        judge, margin = _value_head(group, member), tolerance.margin
        drawn = group.graphs[0].decoder is not None
        with open_reference(original_folder, group.head, base, self._max_length, stream=drawn) as reference:
            original = ask(reference, str(original_folder), task, judge)
            equal = [greedy_equal(reference, task, one.written, margin) for one in played]
        _finite(original, played, self._precision)
        self._proven |= {graph.name for graph in group.graphs}
        return [measure(one, original, same, tolerance) for one, same in zip(played, equal, strict=True)]

    def _whole(self, bundle: Path, group: Group, member: Member, weights: Weights) -> Parity:
        """Of a classifier that reads sequences whole."""
        sequences, folder = self._reading.judged(member), member.checkpoint.folder
        pad, graph = int(member.checkpoint.config.get("pad_token_id") or 0), group.graphs[0].described()
        with _running(group.graphs[0], member):
            scored = classify(bundle, weights, graph, sequences, pad, _threads(member))
        played = Played({"score_logit": scored}, np.zeros(0))
        with open_reference(folder, "score") as reference:
            scores = np.concatenate([reference.score(_alone(graph, *sequence)) for sequence in sequences])
        original = Original(str(folder), scores[:, None])
        _finite(original, [played], "fp32")
        return measure(played, original, None, self._tolerance(group))

    def _tolerance(self, group: Group) -> Tolerance:
        """What a traced graph may cost is fp32's, whatever the others are in."""
        graph = group.graphs[0]
        return tolerance_of(graph.precision, "int8" if graph.scaled else "model")

    def _task(self, group: Group, member: Member) -> Task:
        """What to read and write: in fp32 less of it once another model has proven the graph, for then any token tells.

        Coarser precisions are held to means, which want all positions for each model.
        """
        sequences = self._reading.compared(group, member)
        exact = group.graphs[0].precision == "fp32" and not group.graphs[0].scaled
        known = exact and all(graph.name in self._proven for graph in group.graphs)
        writes = exact and group.head == "logits"
        if known:
            sequences = [row[: AGAIN - index] for index, row in enumerate(sequences[:ROWS_AGAIN])]
        most = min(GREEDY_AGAIN if known else GREEDY, len(sequences[0]) // 2)
        return Task(sequences, most * writes)

    def gate(self, name: str, group: Group, parity: Parity) -> None:
        """Raise GateError unless it passed."""
        gate(name, self._tolerance(group), parity)


@contextmanager
def _running(graph: Graph, member: Member) -> Iterator[None]:
    """Of a traced graph ONNX Runtime's errors are the checkpoint's: what was traced may hold for its example alone."""
    try:
        yield
    except OctavoError:
        raise
    except Exception as error:  # ONNX Runtime's have no class in common
        if graph.route == "native":
            raise
        said = str(error).splitlines()[0]
        raise BundleError(f"{member.checkpoint.folder}: the traced graph does not run: {said}") from error


def _finite(original: Original, played: Sequence[Played], precision: Precision) -> None:
    """Raise where a model gives no numbers to compare."""
    if not np.isfinite(original.outputs).all():
        raise BundleError(f"{original.name}: the original itself gives NaN or infinity: its weights are damaged")
    if not all(np.isfinite(output).all() for one in played for output in one.told.values()):
        hint = "; its activations exceed what fp16 can hold: choose bf16" if precision == "fp16" else ""
        raise GateError(
            f"{original.name}: exported at {precision} it gives NaN or infinity{hint}; no bundle was written"
        )


def _player(bundle: Path, weights: Weights, graph: GraphEntry, task: Task, adapter: int, member: Member) -> Player:
    """A player with room for the task, on all cores where the model is large enough for them."""
    longest = max(max(map(len, task.sequences)), len(task.prompt) + task.greedy)
    return Player(bundle, weights, graph, len(task.sequences), longest, adapter=adapter, threads=_threads(member))


def _alone(graph: GraphEntry, ids: Array, types: Array) -> dict[str, Array]:
    """One sequence, unpadded, as the original takes it; the types only where the graph has them too."""
    typed = any(entry.name == "token_type_ids" for entry in graph.inputs)
    return {"input_ids": ids} | ({"token_type_ids": types} if typed else {})


def _threads(member: Member) -> int:
    return 1 if member.checkpoint.parameters < SMALL else torch.get_num_threads()


def _value_head(group: Group, member: Member) -> Array | None:
    """The weight [1, hidden_size] of the value head that an expert's graph has."""
    judged = group.head == "logits" and any(graph.outputs.judged for graph in group.graphs)
    return member.checkpoint.read(f"{VALUE_HEAD}.weight").astype(np.float32) if judged else None
