"""Runs an exported graph on the CPU as the runtime would: prefill, chunks and decode over one cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy its bfloat16)
import numpy as np
import onnxruntime as ort

from octavo.exporters.checkpoint import Array
from octavo.exporters.opening import open_session
from octavo.profiles.manifest import GraphEntry, Weights

SMALL = 50_000_000  # parameters; below it, threads cost more than they bring


class Player:
    """One open graph with a cache of its own: [2 * layers, rows, kv_heads, length, head_dim]."""

    def __init__(
        self,
        bundle: Path,
        weights: Weights,
        graph: GraphEntry,
        rows: int,
        length: int,
        *,
        adapter: int | Array = 0,
        threads: int = 1,
    ):
        assert graph.kv is not None
        self._session = _opened(bundle, weights, threads)
        self.adapter = adapter
        self._output = graph.outputs[0].name
        self._others = [output.name for output in graph.outputs[1:] if not output.name.startswith("present.")]
        self._inputs = {entry.name for entry in graph.inputs}
        static = graph.kv.max_length if graph.lowering == "tensorrt" else length
        shape = (2 * graph.kv.layers, rows, graph.kv.kv_heads, static, graph.kv.head_dim)
        self.cache = np.zeros(shape, np.dtype(graph.kv.dtype))

    def run(self, rows: slice, ids: Array, held: Array, lengths: Array, total: int, picks: Array) -> Array:
        """One call on a slice of the cache's rows; returns the first output, [rows, picks, ...]."""
        feeds: dict[str, Any] = {
            "input_ids": np.ascontiguousarray(ids, np.int64),
            "adapter_ids": np.zeros(len(ids), np.int64) + self.adapter,
            "held": np.ascontiguousarray(held, np.int64),
            "lengths": np.ascontiguousarray(lengths, np.int32),
            "total_length": np.array([total], np.int32),
            "logit_positions": np.ascontiguousarray(picks, np.int64),
        }
        binding = self._session.io_binding()
        for name in feeds.keys() & self._inputs:
            binding.bind_cpu_input(name, feeds[name])
        views = [ort.OrtValue.ortvalue_from_numpy(layer[rows]) for layer in self.cache]
        for index, view in enumerate(views):
            part = f"{index // 2}.{('key', 'value')[index % 2]}"
            binding.bind_ortvalue_input(f"past_key_values.{part}", view)
            binding.bind_ortvalue_output(f"present.{part}", view)
        for name in (self._output, *self._others):
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        self.others: dict[str, Array] = dict(
            zip(self._others, (v.numpy() for v in binding.get_outputs()[len(views) + 1 :]), strict=True)
        )
        first = np.asarray(binding.get_outputs()[len(views)].numpy())
        self.told = self.others | {self._output: first}
        return first

    def prefill(self, ids: Array, lengths: Array) -> Array:
        """Outputs of every position of rows that are padded on the right: [rows, sequence, ...]."""
        rows, width = ids.shape
        return self.run(slice(0, rows), ids, np.zeros(rows), lengths, width, np.arange(width)[None].repeat(rows, 0))

    def chunk(self, row: int, ids: Array, held: int) -> Array:
        """Outputs of every position of one row's next tokens: [sequence, ...]."""
        total = held + len(ids)
        picks = np.arange(len(ids))[None]
        return np.asarray(
            self.run(slice(row, row + 1), ids[None], np.array([held]), np.array([total]), total, picks)[0]
        )

    def decode(self, ids: Array, held: Array) -> Array:
        """Outputs of one more token in each row: [rows, ...]."""
        lengths = held + 1
        picks = np.zeros((len(ids), 1))
        return np.asarray(self.run(slice(0, len(ids)), ids[:, None], held, lengths, int(lengths.max()), picks)[:, 0])


def padded(rows: Sequence[Array], pad: int = 0) -> tuple[Array, Array]:
    """Rows of unequal length as one array, padded on the right, and their lengths."""
    lengths = np.array([len(row) for row in rows])
    filled = np.full((len(rows), lengths.max()), pad, np.int64)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = row
    return filled, lengths


def classify(
    bundle: Path, weights: Weights, graph: GraphEntry, sequences: Sequence[tuple[Array, Array]], pad: int, threads: int
) -> Array:
    """The score of each sequence (token ids and their types) by a classifier that reads them whole.

    They are one batch, padded with `pad`.
    """
    ids, lengths = padded([ids for ids, _ in sequences], pad)
    types, _ = padded([types for _, types in sequences])
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
    feeds = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    inputs = {entry.name for entry in graph.inputs}
    session = _opened(bundle, weights, threads)
    return np.asarray(session.run(["score_logit"], {name: feeds[name] for name in inputs})[0])


def _opened(bundle: Path, weights: Weights, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "1")  # a packed copy would double the memory
    return open_session(bundle, weights, options, ["CPUExecutionProvider"])


Told = dict[str, Array]  # what a graph says of positions, by output: [positions, ...]


def play(player: Player, sequences: list[Array]) -> list[Told]:
    """Outputs of every position of each sequence, by way of a ragged prefill, a chunk per row, and decoding."""
    lengths = np.array([len(sequence) for sequence in sequences])
    starts = np.maximum(lengths // 2, 1)
    ids, _ = padded([sequence[:start] for sequence, start in zip(sequences, starts, strict=True)])
    player.prefill(ids, starts)
    parts = [[_of_row(player.told, row, start)] for row, start in enumerate(starts)]
    tails = np.minimum(4, lengths - starts)
    ends = lengths - tails.min()
    for row, (sequence, start, end) in enumerate(zip(sequences, starts, ends, strict=True)):
        if end > start:
            player.chunk(row, sequence[start:end], int(start))
            parts[row].append(_of_row(player.told, 0, end - start))
    for step in range(tails.min()):
        step_ids = np.array([sequence[end + step] for sequence, end in zip(sequences, ends, strict=True)])
        player.decode(step_ids, ends + step)
        for row in range(len(sequences)):
            parts[row].append(_of_row(player.told, row, 1))
    return [{name: np.concatenate([part[name] for part in row]) for name in row[0]} for row in parts]


def _of_row(told: Told, row: int, count: int) -> Told:
    return {name: output[row, :count] for name, output in told.items()}


def greedy(player: Player, prompt: Array, count: int) -> Array:
    """The `count` most likely tokens after a prompt, one after another."""
    written: list[int] = []
    if count:
        player.prefill(prompt[None], np.array([len(prompt)]))
    for step in range(count):
        written.append(_best(player.told))
        if step < count - 1:
            player.decode(np.array(written[-1:]), np.array([len(prompt) + step]))
    return np.array(written, np.int64)


def _best(told: Told) -> int:
    """The most likely token at the last position of the first row."""
    if "top_ids" in told:
        return int(told["top_ids"][0, -1, 0])
    return int(told["logits"][0, -1].argmax())
