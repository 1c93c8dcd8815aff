"""The KV cache of one model: rows of preallocated memory, bound as past and present at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from octavo.profiles.manifest import KVLayout
from octavo.runtime.ort.identity import identity_model
from octavo.runtime.ort.session import Device

ONNX_TYPES = {"float32": 1, "float16": 10, "bfloat16": 16, "int8": 3, "uint8": 2}
STORAGE = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int8": np.int8, "uint8": np.uint8}


class Cache:
    """`rows` rows of `length` tokens; per layer a key and a value of [rows, kv_heads, length, head_dim].

    On the host the memory is one numpy array that the system hands out page by page as it is written, so that room
    never used costs nothing. On a GPU it is allocated at once.
    """

    def __init__(self, layout: KVLayout, rows: int, length: int, device: Device) -> None:
        self.rows = rows
        self.length = length
        self.device = device
        self.parts = [f"{layer}.{part}" for layer in range(layout.layers) for part in ("key", "value")]
        self.row_shape = (layout.kv_heads, length, layout.head_dim)
        self.element_type = ONNX_TYPES[layout.dtype]
        dtype = np.dtype(STORAGE[layout.dtype])
        self.row_bytes = int(np.prod(self.row_shape)) * dtype.itemsize
        self._host: Any = None
        if device.on_host:
            self._host = np.zeros((len(self.parts), rows, *self.row_shape), dtype)
            self._pointers = [part.ctypes.data for part in self._host]
        else:
            self._values = [_zeros((rows, *self.row_shape), layout.dtype, device) for _ in self.parts]
            self._pointers = [value.data_ptr() for value in self._values]
            self._copier = ort.InferenceSession(
                identity_model(len(self.parts), self.element_type, self.row_shape),
                providers=[("CUDAExecutionProvider", {"device_id": str(device.index)})],
            )

    @property
    def kind(self) -> str:
        return "cpu" if self.device.on_host else "cuda"

    def bind(self, binding: Any, start: int, count: int) -> None:
        """Bind rows `start` to `start + count` as past and present of every layer."""
        shape = (count, *self.row_shape)
        where = (self.kind, 0 if self.device.on_host else self.device.index, self.element_type, shape)
        for part, pointer in zip(self.parts, self._pointers, strict=True):
            at = pointer + start * self.row_bytes
            binding.bind_input(f"past_key_values.{part}", *where, at)
            binding.bind_output(f"present.{part}", *where, at)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a row into another (on a GPU, the whole row)."""
        if self._host is not None:
            self._host[:, target, :, :length] = self._host[:, source, :, :length]
            return
        binding = self._copier.io_binding()
        for index, pointer in enumerate(self._pointers):
            where = ("cuda", self.device.index, self.element_type, self.row_shape)
            binding.bind_input(f"x{index}", *where, pointer + source * self.row_bytes)
            binding.bind_output(f"y{index}", *where, pointer + target * self.row_bytes)
        self._copier.run_with_iobinding(binding)

    def read(self, row: int, start: int, stop: int) -> Any:
        """A copy of some tokens of a row, [parts, kv_heads, stop - start, head_dim]; host memory only."""
        return self._host[:, row, :, start:stop].copy()

    def write(self, row: int, start: int, stop: int, tokens: Any) -> None:
        """Put back what `read` gave, at the same place in some row."""
        self._host[:, row, :, start:stop] = tokens


def _zeros(shape: tuple[int, ...], dtype: str, device: Device) -> Any:
    """A tensor of zeros on a GPU: garbage there could be NaN."""
    zeros = np.zeros(shape, STORAGE[dtype])
    if dtype != "bfloat16":
        return ort.OrtValue.ortvalue_from_numpy(zeros, "cuda", device.index)
    value = ort.OrtValue.ortvalue_from_shape_and_type(shape, ONNX_TYPES[dtype], "cuda", device.index)
    ort.copy_tensors([ort.OrtValue.ortvalue_from_numpy_with_onnx_type(zeros, ONNX_TYPES[dtype])], [value])
    return value
