"""Verification of freshly written models against their originals, before a bundle gets its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octavo.exporters.checkpoint import Array
from octavo.exporters.outputs import VALUE_HEAD
from octavo.exporters.parity import gate, measure, probe
from octavo.exporters.plan import Group, Member
from octavo.exporters.player import Player
from octavo.exporters.reference import open_reference
from octavo.exporters.settings import Settings
from octavo.exporters.twin import runnable
from octavo.profiles.errors import BundleError, ConfigError
from octavo.profiles.manifest import Parity, Weights

TEXTS = 32  # sequences read of a text file, at most
TOKENS = 96  # of each, at most
ENOUGH = 768  # tokens read of a text file
SAMPLES = 14  # sequences drawn from the model itself, where there is no text
DRAWN = 32  # tokens of each


class Verifier:
    """Compares models with their originals; holds one original or one exported model at a time, never both."""

    def __init__(self, settings: Settings, text: Path | None):
        self._precision = settings.precision
        self._text = text
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
        head = group.head
        length = min(TOKENS, min(graph.kv.max_length for graph in group.graphs) // 2)
        texts = self._read(member, length)
        with open_reference(original_folder, head, base) as reference:
            judge = _value_head(group, member)
            original = probe(reference, str(original_folder), head, texts, SAMPLES, min(DRAWN, length), judge)
        rows, longest = len(original.sequences), max(map(len, original.sequences))
        found = []
        for graph, entry in zip(group.graphs, weights, strict=True):
            with runnable(bundle, graph, member.checkpoint, entry) as (folder, model, files):
                found.append(
                    measure(Player(folder, files, model, rows, longest, adapter=adapter), original, self._precision)
                )
        return found

    def gate(self, name: str, measured: Sequence[Parity]) -> None:
        """Raise GateError unless all passed."""
        for parity in measured:
            gate(name, self._precision, parity)

    def _read(self, member: Member, length: int) -> list[Array]:
        """The text file's first lines as token ids, by the model's own tokenizer."""
        folder = member.checkpoint.folder
        text = self._text or next(iter(sorted(folder.parent.glob("tasks/*.jsonl"))), None)
        places = [place / "tokenizer.json" for place in (folder, member.checkpoint.base) if place is not None]
        tokenizer = next((place for place in places if place.is_file()), None)
        if text is None or (tokenizer is None and self._text is None):
            return []
        if tokenizer is None:
            raise BundleError(f"{folder}: no tokenizer.json to read the parity text with")
        from tokenizers import Tokenizer

        encode = Tokenizer.from_file(str(tokenizer)).encode
        ids = [np.array(encode(line).ids[:length]) for line in read_texts(text)[:TEXTS]]
        rows = [row for row in ids if len(row) > 1]
        return [row for row, before in zip(rows, np.cumsum([0, *map(len, rows)]), strict=False) if before < ENOUGH]


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
