"""The `tensorrt` lowering: standard operators of opset 24 in the one form that TensorRT's builder was found to accept.

The cache has a static length and four dimensions, is updated by TensorScatter outside attention, and Attention has one
output; everything is typed, and there is no contrib operator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from octavo.exporters.linear import Dense, Matrix
from octavo.exporters.mixture import Mixture, dense_mixture
from octavo.exporters.net import Net
from octavo.exporters.rope import cos_sin
from octavo.exporters.spec import Decoder, Layer, Rotary
from octavo.profiles.manifest import KVLayout

OPSET = 24
CACHE_LENGTH = 2048  # tokens, unless the model's context is shorter or `max_length` says otherwise


class TensorrtLowering:
    """Attention over a static cache under an explicit mask; any row may be at any length in any call."""

    def __init__(self, decoder: Decoder, dtype: ir.DataType, cache_length: int):
        self.net = Net("decoder", OPSET)
        self.dtype = dtype
        self._decoder = decoder
        self._length = cache_length
        self.input_ids = self.net.input("input_ids", ir.DataType.INT64, ["batch", "sequence"])
        self._held = self.net.input("held", ir.DataType.INT64, ["batch"])
        picks = self.net.input("logit_positions", ir.DataType.INT64, ["batch", "picks"])
        self._picks = self._wide(picks, 2)
        self._positions = self._row_positions()
        self._masks: dict[int | None, ir.Value] = {}
        self._tables: dict[Rotary, tuple[ir.Value, ir.Value]] = {}
        self._presents: list[ir.Value] = []
        self._cache: list[int | str] = ["batch", decoder.kv_heads, cache_length, decoder.head_dim]
        self._pasts = [self.net.input(name, dtype, self._cache) for name in self._cache_names("past_key_values")]

    def norm(self, x: ir.Value, weight: ir.Value, epsilon: float | None = None) -> ir.Value:
        return self.net.op("RMSNormalization", x, weight, axis=-1, epsilon=epsilon or self._decoder.norm_epsilon)

    def add_norm(self, x: ir.Value, skip: ir.Value, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
        total = self.net.op("Add", x, skip)
        return self.norm(total, weight), total

    def attention(self, index: int, layer: Layer, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
        q, k = self._turn(self._heads(q), layer.rotary), self._turn(self._heads(k), layer.rotary)
        keys, values = (
            self.net.op("TensorScatter", self._pasts[2 * index + part], new, self._held, axis=2, mode="linear")
            for part, new in enumerate((k, self._heads(v)))
        )
        self._presents += [keys, values]
        attend = self._capped if self._decoder.attention_cap else self._fused
        attended = attend(q, keys, values, self._mask(layer.window))
        flat = self.net.op("Transpose", attended, perm=[0, 2, 1, 3])
        return self.net.op("Reshape", flat, self.net.constant([0, 0, -1], "flat"))

    def pick(self, x: ir.Value) -> ir.Value:
        return self.net.op("GatherND", x, self._picks, batch_dims=1)

    def dense(self, x: ir.Value, matrix: Matrix) -> ir.Value:
        return Dense(self.dtype)(self.net, x, matrix)

    def mixture(self, x: ir.Value, router: ir.Value, mixture: Mixture) -> ir.Value:
        return dense_mixture(self.net, x, router, mixture)

    def finish(self) -> KVLayout:
        for value, name in zip(self._presents, self._cache_names("present"), strict=True):
            self.net.output(value, name, self.dtype, self._cache)
        decoder = self._decoder
        return KVLayout(
            layers=len(decoder.layers),
            kv_heads=decoder.kv_heads,
            head_dim=decoder.head_dim,
            dtype=str(self.dtype.numpy()),
            shared_buffer=True,
            max_length=self._length,
        )

    def _fused(self, q: ir.Value, keys: ir.Value, values: ir.Value, mask: ir.Value) -> ir.Value:
        return self.net.op("Attention", q, keys, values, mask, scale=self._decoder.attention_scale)

    def _capped(self, q: ir.Value, keys: ir.Value, values: ir.Value, mask: ir.Value) -> ir.Value:
        """Attention with capped scores, which TensorRT's Attention has not: cap * tanh(score / cap), in fp32.

        Each cached head is read by its group of heads, q being [batch, kv_heads, group, sequence, head_dim].
        """
        decoder, cap = self._decoder, self.net.constant(self._decoder.attention_cap or 0.0, "cap")
        grouped = self.net.constant([0, decoder.kv_heads, decoder.heads // decoder.kv_heads, -1, decoder.head_dim], "q")
        turned = self.net.op("Transpose", self._wide(keys, 2), perm=[0, 1, 2, 4, 3])
        scores = self.net.op("MatMul", self.net.op("Reshape", q, grouped), turned)
        scale = self.net.constant(decoder.attention_scale, "scale")
        scores = self.net.op("Mul", self.net.op("Cast", scores, to=ir.DataType.FLOAT), scale)
        scores = self.net.op("Mul", self.net.op("Tanh", self.net.op("Div", scores, cap)), cap)
        seen = self.net.op("Where", self._wide(mask, 1), scores, self.net.constant(-1e9, "unseen"))
        shares = self.net.op("Cast", self.net.op("Softmax", seen, axis=-1), to=self.dtype)
        attended = self.net.op("MatMul", shares, self._wide(values, 2))
        return self.net.op("Reshape", attended, self.net.constant([0, decoder.heads, -1, decoder.head_dim], "heads"))

    def _row_positions(self) -> ir.Value:
        """The position in its row of each token of the call: [batch, sequence]."""
        shape = self.net.op("Shape", self.input_ids, start=1, end=2)
        count = self.net.op("Squeeze", shape, self.net.constant([0], "axis"))
        steps = self.net.op("Range", self.net.constant(0, "zero"), count, self.net.constant(1, "one"))
        return self.net.op("Add", self._wide(self._held, 1), steps)

    def _mask(self, window: int | None) -> ir.Value:
        """Which keys each token sees: [batch, 1, sequence, cache_length] booleans."""
        if window not in self._masks:
            own = self._wide(self._wide(self._positions, 1), 3)
            keys = self.net.constant(np.arange(self._length).reshape(1, 1, 1, -1), "keys")
            seen = self.net.op("LessOrEqual", keys, own)
            if window is not None:
                first = self.net.op("Sub", own, self.net.constant(window, "window"))
                seen = self.net.op("And", seen, self.net.op("Greater", keys, first))
            self._masks[window] = seen
        return self._masks[window]

    def _heads(self, x: ir.Value) -> ir.Value:
        """[batch, sequence, heads * head_dim] to [batch, heads, sequence, head_dim]."""
        split = self.net.op("Reshape", x, self.net.constant([0, 0, -1, self._decoder.head_dim], "heads"))
        return self.net.op("Transpose", split, perm=[0, 2, 1, 3])

    def _turn(self, x: ir.Value, rotary: Rotary) -> ir.Value:
        if rotary not in self._tables:
            self._tables[rotary] = cos_sin(self.net, rotary, self._length, self.dtype)
        pairs = len(rotary.inverse_frequencies)
        partly: dict[str, Any] = {"rotary_embedding_dim": 2 * pairs} if 2 * pairs < self._decoder.head_dim else {}
        return self.net.op("RotaryEmbedding", x, *self._tables[rotary], self._positions, **partly)

    def _wide(self, x: ir.Value, axis: int) -> ir.Value:
        return self.net.op("Unsqueeze", x, self.net.constant([axis], "axis"))

    def _cache_names(self, stem: str) -> list[str]:
        return [f"{stem}.{index}.{part}" for index in range(len(self._decoder.layers)) for part in ("key", "value")]
