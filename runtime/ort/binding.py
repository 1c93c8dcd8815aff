"""The graph's calls on rows of a cache: prefill, chunk and decode, with buffers bound once and used again."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from octavo.runtime.ort.cache import Cache
from octavo.runtime.ort.session import Model

Array = NDArray[Any]
Outputs = dict[str, Array]
NUMPY = {"float32": np.float32, "int64": np.int64}


class Calls:
    """Runs one model on one cache. What a call returns is overwritten by the next call.

    `ids` [rows, 1] int64 and `lengths` [rows] int32 are the caller's to fill before each decode: the token to read in
    each row, and the tokens that the row holds after it.
    """

    def __init__(self, model: Model, cache: Cache) -> None:
        self.model = model
        self.cache = cache
        self.ids = np.zeros((cache.rows, 1), np.int64)
        self.lengths = np.ones(cache.rows, np.int32)
        self._total = np.ones(1, np.int32)
        self._picks = np.zeros((cache.rows, 1), np.int64)
        self._outputs = self._allocate(cache.rows)
        self._decodes: dict[int, Any] = {}
        self._views: dict[int, Outputs] = {}

    def decode(self, rows: int) -> Outputs:
        """Read `ids` in the first rows and write their KV; the outputs are [rows, ...] of the next token."""
        self._total[0] = self.lengths[:rows].max()
        if not self.model.device.on_host:
            return self._call(0, rows, self.ids[:rows], self.lengths[:rows], int(self._total[0]), self._picks[:rows])
        binding = self._decodes.get(rows)
        if binding is None:
            binding = self._decodes[rows] = self._bind_decode(rows)
        self.model.session.run_with_iobinding(binding)
        return self._views[rows]

    def prefill(self, start: int, ids: Array, lengths: Array) -> Outputs:
        """Read whole prompts, padded on the right, into rows from `start` on; the outputs follow each last token.

        `ids` is [rows, sequence] int64, `lengths` [rows] int32 the real lengths.
        """
        picks = lengths.astype(np.int64)[:, None] - 1
        return self._call(start, len(ids), ids, lengths, ids.shape[1], picks)

    def chunk(self, row: int, ids: Array, held: int) -> Outputs:
        """Read more tokens, `ids` [sequence] int64, into one row that holds some; outputs are [1, ...]."""
        total = held + len(ids)
        picks = np.array([[len(ids) - 1]], np.int64)
        return self._call(row, 1, ids[None], np.array([total], np.int32), total, picks)

    def _call(self, start: int, rows: int, ids: Array, lengths: Array, total: int, picks: Array) -> Outputs:
        binding = self.model.session.io_binding()
        feeds = (ids, lengths, np.array([total], np.int32), picks)
        kept = _bind_feeds(binding, feeds, self.model)
        self.cache.bind(binding, start, rows)
        views = self._bind_outputs(binding, rows)
        self.model.session.run_with_iobinding(binding)
        del kept
        return views

    def _bind_decode(self, rows: int) -> Any:
        binding = self.model.session.io_binding()
        _bind_feeds(binding, (self.ids[:rows], self.lengths[:rows], self._total, self._picks[:rows]), self.model)
        self.cache.bind(binding, 0, rows)
        self._views[rows] = self._bind_outputs(binding, rows)
        return binding

    def _bind_outputs(self, binding: Any, rows: int) -> Outputs:
        """Let the outputs be written to the first rows of the buffers; returns those rows."""
        for name, output in self._outputs.items():
            shape = (rows, *output.shape[1:])
            binding.bind_output(name, "cpu", 0, output.dtype, shape, output.ctypes.data)
        return {name: output[:rows, 0] for name, output in self._outputs.items()}

    def _allocate(self, rows: int) -> Outputs:
        dtypes = {entry.name: NUMPY[entry.dtype] for entry in self.model.graph.outputs if entry.dtype in NUMPY}
        widths = {name: self.model.width(name) for name in self.model.outputs}
        return {
            name: np.zeros((rows, 1) if width is None else (rows, 1, width), dtypes[name])
            for name, width in widths.items()
        }


def _bind_feeds(binding: Any, feeds: tuple[Array, ...], model: Model) -> list[Any]:
    """Bind the four inputs that are not cache; returns what must stay alive until the call is over."""
    names = ("input_ids", "lengths", "total_length", "logit_positions")
    kept: list[Any] = []
    for name, array in zip(names, feeds, strict=True):
        if model.device.on_host or name == "total_length":
            binding.bind_cpu_input(name, array)
            kept.append(array)
        else:
            value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", model.device.index)
            binding.bind_ortvalue_input(name, value)
            kept.append(value)
    return kept
