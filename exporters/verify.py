"""Verification of freshly written models against their originals, before a bundle gets its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from octavo.exporters.checkpoint import Array
from octavo.exporters.outputs import VALUE_HEAD
from octavo.exporters.parity import TOLERANCES, Original, Played, Task, ask, gate, greedy_equal, measure, run
from octavo.exporters.plan import Group, Member
from octavo.exporters.player import Player
from octavo.exporters.reference import SMALL, open_reference
from octavo.exporters.settings import Settings
from octavo.exporters.text import TEXT
from octavo.exporters.twin import runnable
from octavo.profiles.errors import BundleError, ConfigError, GateError
from octavo.profiles.manifest import GraphEntry, Parity, Precision, Weights

TEXTS = 32  # sequences read of a text file, at most
TOKENS = 96  # of each, at most
ENOUGH = 768  # tokens read of a text file
DRAWN, WIDTH = 4, 64  # sequences and their tokens where no text was given
VARIED = 24  # different tokens that a tokenizer must make of the text at hand for it to be worth reading
ROWS_AGAIN, AGAIN = 2, 24  # sequences, and tokens of each, read by a further model of a graph that is proven
GREEDY, GREEDY_AGAIN = 16, 4  # tokens that the first and the further models write
SEED = 1


class Verifier:
    """Compares models with their originals; holds one original or one exported model at a time, never both."""

    def __init__(self, settings: Settings, text: Path | None):
        self._precision = settings.precision
        self._text = text
        self._proven: set[str] = set()
        if text is not None and not text.is_file():
            raise ConfigError(f"{text}: no such file to read parity text from")

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
        task = self._task(group, member)
        played = []
        for graph, entry in zip(group.graphs, weights, strict=True):
            with runnable(bundle, graph, member.checkpoint, entry) as (folder, model, files):
                played.append(run(_player(folder, files, model, task, adapter, member), task))
        judge, margin = _value_head(group, member), TOLERANCES[self._precision].margin
        with open_reference(original_folder, group.head, base) as reference:
            original = ask(reference, str(original_folder), task, judge)
            equal = [greedy_equal(reference, task, one.written, margin) for one in played]
        _finite(original, played, self._precision)
        self._proven |= {graph.name for graph in group.graphs}
        return [measure(one, original, same, self._precision) for one, same in zip(played, equal, strict=True)]

    def _task(self, group: Group, member: Member) -> Task:
        """What to read and write: in fp32 less of it once another model has proven the graph, for then any token tells.

        Coarser precisions are held to means, which want all positions for each model.
        """
        length = min(TOKENS, min(graph.kv.max_length for graph in group.graphs) // 2)
        sequences = self._read(member, length) or self._at_hand(group, member, min(WIDTH, length))
        exact = self._precision == "fp32"
        known = exact and all(graph.name in self._proven for graph in group.graphs)
        writes = exact and group.head == "logits"
        if known:
            sequences = [row[: AGAIN - index] for index, row in enumerate(sequences[:ROWS_AGAIN])]
        most = min(GREEDY_AGAIN if known else GREEDY, len(sequences[0]) // 2)
        return Task(sequences, most * writes)

    def _at_hand(self, group: Group, member: Member, length: int) -> list[Array]:
        """The text that comes along, or, for a tokenizer that makes nothing of it, tokens at random; ragged."""
        vocabulary, tokenizer = group.graphs[0].vocab_size, _tokenizer(member)
        ids = np.zeros(0, np.int64)
        if tokenizer is not None:
            ids = np.array(Tokenizer.from_file(str(tokenizer)).encode(TEXT).ids, np.int64)
        if len(ids) < DRAWN * length or len(np.unique(ids)) < VARIED or ids.max() >= vocabulary:
            ids = np.random.default_rng(SEED).integers(vocabulary, size=DRAWN * length)
        return [row[: max(1, length - index)] for index, row in enumerate(ids[: DRAWN * length].reshape(DRAWN, length))]

    def gate(self, name: str, measured: Sequence[Parity]) -> None:
        """Raise GateError unless all passed."""
        for parity in measured:
            gate(name, self._precision, parity)

    def _read(self, member: Member, length: int) -> list[Array]:
        """The text file's first lines as token ids, by the model's own tokenizer."""
        folder, tokenizer = member.checkpoint.folder, _tokenizer(member)
        text = self._text or next(iter(sorted(folder.parent.glob("tasks/*.jsonl"))), None)
        if text is None or (tokenizer is None and self._text is None):
            return []
        if tokenizer is None:
            raise BundleError(f"{folder}: no tokenizer.json to read the parity text with")
        encode = Tokenizer.from_file(str(tokenizer)).encode
        ids = [np.array(encode(line).ids[:length]) for line in read_texts(text)[:TEXTS]]
        return _upto([row for row in ids if len(row) > 1], ENOUGH)


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
    threads = 1 if member.checkpoint.parameters < SMALL else torch.get_num_threads()
    return Player(bundle, weights, graph, len(task.sequences), longest, adapter=adapter, threads=threads)


def _tokenizer(member: Member) -> Path | None:
    places = [place / "tokenizer.json" for place in (member.checkpoint.folder, member.checkpoint.base) if place]
    return next((place for place in places if place.is_file()), None)


def _upto(rows: list[Array], tokens: int) -> list[Array]:
    """The first rows, until so many tokens are reached."""
    return [row for row, before in zip(rows, np.cumsum([0, *map(len, rows)]), strict=False) if before < tokens]


def _value_head(group: Group, member: Member) -> Array | None:
    """The weight [1, hidden_size] of the value head that an expert's graph has."""
    judged = group.head == "logits" and any(graph.outputs.judged for graph in group.graphs)
    return member.checkpoint.read(f"{VALUE_HEAD}.weight").astype(np.float32) if judged else None


def read_texts(path: Path) -> list[str]:
    """The texts of a .jsonl file (`text`, or `prompt` with `answer` or `reference`), or another's paragraphs."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl":
        return [part.strip() for part in content.split("\n\n") if part.strip()]
    records = [json.loads(line) for line in content.splitlines() if line.strip()]
    return [str(record.get("text") or _asked_and_answered(record)) for record in records]


def _asked_and_answered(record: dict[str, object]) -> str:
    return f"{record.get('prompt', '')}{record.get('answer') or record.get('reference') or ''}"
