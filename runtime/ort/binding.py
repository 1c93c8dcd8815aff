"""The graph's calls on rows of a cache: prefill, chunk and decode, with buffers bound once and used again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from octavo.runtime.ort.cache import Cache
from octavo.runtime.ort.fusing import FORKS
from octavo.runtime.ort.session import Model

Array = NDArray[Any]
Outputs = dict[str, Array]
Run = Callable[[Any, Any], None]
NUMPY = {"float32": np.float32, "int64": np.int64}


@dataclass(frozen=True, slots=True)
class _Bound:
    """A decode call of some rows, bound once; what lies on a GPU is copied there before each call.

    What the call writes on the GPU, in `results`, is copied back after it.
    """

    binding: Any
    outputs: Outputs
    on_device: list[tuple[Any, Array]]
    results: list[tuple[Any, Array]]
    options: Any


class Calls:
    """Runs one model on one cache. What a call returns is overwritten by the next call.

    `ids` [rows, 1] int64, `lengths` [rows] int32 and `adapters` [rows] int64 are the caller's to fill before each
    decode: the token to read in each row, the tokens that the row holds after it, and the adapter it is read with
    (where the graph has any). So is `forks` [rows, 2] int32: rows of the same family, a number from 1 on, hold the same
    first tokens, as many as the second number says; octavo's own attention then reads them once. `run` is the session's
    own; whoever measures puts a clock around it.
    """

    def __init__(self, model: Model, cache: Cache) -> None:
        self.model = model
        self.cache = cache
        self.run: Run = model.session.run_with_iobinding
        self.ids = np.zeros((cache.rows, 1), np.int64)
        self.lengths = np.ones(cache.rows, np.int32)
        self.adapters = np.zeros(cache.rows, np.int64)
        self.forks = np.zeros((cache.rows, 2), np.int32)
        self._held = np.zeros(cache.rows, np.int64)
        self._total = np.full(1, cache.length, np.int32)
        self._picks = np.zeros((cache.rows, 1), np.int64)
        self._names = [entry.name for entry in model.graph.inputs if not entry.name.startswith("past_key_values.")]
        self._names += [FORKS] if model.forks else []
        self._outputs = self._allocate(cache.rows)
        self._decodes: dict[int, _Bound] = {}
        self._unrecorded = capturing(None)
        # Where a graph reads the total on a GPU (one that was traced), binding copies it there, once.
        self._rebinds = not model.device.on_host and not model.captures and "total_length" in self._names

    def decode(self, rows: int) -> Outputs:
        """Read `ids` in the first rows and write their KV; the outputs are [rows, ...] of the next token."""
        part = slice(0, rows)
        if not self.model.captures:  # a recorded call has the longest that any row can be, for good
            self._total[0] = self.lengths[part].max()
        np.subtract(self.lengths[part], 1, out=self._held[part])
        if rows not in self._decodes:
            self._decodes[rows] = self._bind_decode(part)
        bound = self._decodes[rows]
        for value, array in bound.on_device:
            value.update_inplace(array)
        if self._rebinds:
            bound.binding.bind_cpu_input("total_length", self._total)
        self.run(bound.binding, bound.options)
        for value, array in bound.results:
            array[:] = value.numpy()
        return bound.outputs

    def prefill(self, start: int, ids: Array, lengths: Array, adapters: Array) -> Outputs:
        """Read whole prompts, padded on the right, into rows from `start` on; the outputs follow each last token.

        `ids` is [rows, sequence] int64, `lengths` [rows] int32 the real lengths, `adapters` [rows] int64.
        """
        feeds = {
            "input_ids": ids,
            "lengths": lengths,
            "held": np.zeros(len(ids), np.int64),
            "total_length": np.array([ids.shape[1]], np.int32),
            "logit_positions": lengths.astype(np.int64)[:, None] - 1,
            "adapter_ids": adapters,
            FORKS: np.zeros((len(ids), 2), np.int32),
        }
        return self._call(start, len(ids), feeds)

    def chunk(self, row: int, ids: Array, held: int, adapter: int) -> Outputs:
        """Read more tokens, `ids` [sequence] int64, into one row that holds some; outputs are [1, ...]."""
        total = np.array([held + len(ids)], np.int32)
        feeds = {
            "input_ids": ids[None],
            "lengths": total,
            "held": np.array([held], np.int64),
            "total_length": total,
            "logit_positions": np.array([[len(ids) - 1]], np.int64),
            "adapter_ids": np.array([adapter], np.int64),
            FORKS: np.zeros((1, 2), np.int32),
        }
        return self._call(row, 1, feeds)

    def _bind_decode(self, part: slice) -> _Bound:
        feeds: dict[str, Array] = {
            "input_ids": self.ids[part],
            "lengths": self.lengths[part],
            "held": self._held[part],
            "total_length": self._total,
            "logit_positions": self._picks[part],
            "adapter_ids": self.adapters[part],
            FORKS: self.forks[part],
        }
        binding = self.model.session.io_binding()
        kept = self._bind_feeds(binding, feeds)
        self.cache.bind(binding, 0, part.stop)
        on_device = [(value, array) for value, array in kept if value is not None]
        results = self._bind_results(binding, part.stop) if self.model.captures else []
        outputs = self._views(part.stop) if results else self._bind_outputs(binding, part.stop)
        return _Bound(binding, outputs, on_device, results, capturing(part.stop))

    def _call(self, start: int, rows: int, feeds: dict[str, Array]) -> Outputs:
        binding = self.model.session.io_binding()
        kept = self._bind_feeds(binding, feeds)
        self.cache.bind(binding, start, rows)
        outputs = self._bind_outputs(binding, rows)
        self.run(binding, self._unrecorded)
        del kept
        return outputs

    def _bind_feeds(self, binding: Any, feeds: dict[str, Array]) -> list[tuple[Any, Array]]:
        """Bind the inputs that the graph has; returns what must stay alive until the call is over.

        On a GPU each array goes with its copy there; `total_length` stays with the host, where the graph wants it.
        """
        kept: list[tuple[Any, Array]] = []
        for name in self._names:
            array = feeds[name]
            if self.model.device.on_host or name == "total_length":
                binding.bind_cpu_input(name, array)
                kept.append((None, array))
            else:
                value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", self.model.device.index)
                binding.bind_ortvalue_input(name, value)
                kept.append((value, array))
        return kept

    def _bind_outputs(self, binding: Any, rows: int) -> Outputs:
        """Let the outputs be written to the first rows of the buffers; returns those rows."""
        for name, output in self._outputs.items():
            shape = (rows, *output.shape[1:])
            binding.bind_output(name, "cpu", 0, output.dtype, shape, output.ctypes.data)
        return self._views(rows)

    def _bind_results(self, binding: Any, rows: int) -> list[tuple[Any, Array]]:
        """Let the outputs be written to the device, where a recorded call finds them again, each time."""
        results = []
        for name, output in self._outputs.items():
            value = ort.OrtValue.ortvalue_from_numpy(output[:rows].copy(), self.cache.kind, self.model.device.index)
            binding.bind_ortvalue_output(name, value)
            results.append((value, output[:rows]))
        return results

    def _views(self, rows: int) -> Outputs:
        return {name: output[:rows, 0] for name, output in self._outputs.items()}

    def _allocate(self, rows: int) -> Outputs:
        dtypes = {entry.name: NUMPY[entry.dtype] for entry in self.model.graph.outputs if entry.dtype in NUMPY}
        widths = {name: self.model.width(name) for name in self.model.outputs}
        return {
            name: np.zeros((rows, 1) if width is None else (rows, 1, width), dtypes[name])
            for name, width in widths.items()
        }


def capturing(rows: int | None) -> Any:
    """Run options that name the CUDA graph of a call: one per number of rows; None for calls that are not recorded.

    A session that records nothing takes no notice.
    """
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(-1 if rows is None else rows))
    return options
