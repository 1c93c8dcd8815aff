"""The `ort` lowering: fused contrib operators of ONNX Runtime, for its CPU and CUDA providers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from octavo.exporters.fewbits import quantized_mixture
from octavo.exporters.kv import PARTS, scale_weight
from octavo.exporters.linear import Dense, Matrix
from octavo.exporters.mixture import Mixture, fused_mixture
from octavo.exporters.net import MICROSOFT, Net
from octavo.exporters.rope import cos_sin
from octavo.exporters.spec import Decoder, Layer, Rotary
from octavo.profiles.manifest import KVLayout, KVPrecision

OPSET = 23
QUANTIZED: dict[str, Any] = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}


class OrtLowering:
    """GroupQueryAttention over a cache that is updated in place, and skip-RMS norms.

    The experts of sparse layers are stored in `sparse_bits` (8 or 4), or in `dtype`; the cache in `dtype` or in int8.
    """

    def __init__(self, decoder: Decoder, dtype: ir.DataType, sparse_bits: int | None = None, kv: KVPrecision = "model"):
        self.net = Net("decoder", OPSET)
        self.dtype = dtype
        self._sparse_bits = sparse_bits
        self._quantized = kv == "int8"
        self._stored = ir.DataType.INT8 if self._quantized else dtype
        self._decoder = decoder
        self.input_ids = self.net.input("input_ids", ir.DataType.INT64, ["batch", "sequence"])
        lengths = self.net.input("lengths", ir.DataType.INT32, ["batch"])
        self._total = self.net.input("total_length", ir.DataType.INT32, [1])
        positions = self.net.input("logit_positions", ir.DataType.INT64, ["batch", "picks"])
        self._seqlens = self.net.op("Sub", lengths, self.net.constant(np.array(1, np.int32), "one"))
        self._picks = self.net.op("Unsqueeze", positions, self.net.constant([2], "axis"))
        self._tables: dict[Rotary, tuple[ir.Value, ir.Value]] = {}
        self._presents: list[ir.Value] = []
        self._cache: list[int | str] = ["batch", decoder.kv_heads, "cache_length", decoder.head_dim]
        for name in self._cache_names("past_key_values"):
            self.net.input(name, self._stored, self._cache)

    def norm(self, x: ir.Value, weight: ir.Value, epsilon: float | None = None) -> ir.Value:
        return self.net.op("RMSNormalization", x, weight, axis=-1, epsilon=epsilon or self._decoder.norm_epsilon)

    def add_norm(self, x: ir.Value, skip: ir.Value, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
        normed, mean, deviation, total = self.net.ops(
            "SkipSimplifiedLayerNormalization",
            *(x, skip, weight),
            outputs=4,
            domain=MICROSOFT,
            epsilon=self._decoder.norm_epsilon,
        )
        mean.name = deviation.name = ""
        return normed, total

    def attention(self, index: int, layer: Layer, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
        past_key, past_value = self.net.inputs[4 + 2 * index : 6 + 2 * index]
        attended, *present = self.net.ops(
            "GroupQueryAttention",
            *(q, k, v, past_key, past_value, self._seqlens, self._total, *self._table(layer.rotary)),
            *self._scales(index),
            outputs=3,
            domain=MICROSOFT,
            num_heads=self._decoder.heads,
            kv_num_heads=self._decoder.kv_heads,
            scale=self._decoder.attention_scale,
            softcap=self._decoder.attention_cap or 0.0,
            local_window_size=layer.window if layer.window else -1,
            do_rotary=1,
            **QUANTIZED if self._quantized else {},
        )
        self._presents += present
        return attended

    def pick(self, x: ir.Value) -> ir.Value:
        return self.net.op("GatherND", x, self._picks, batch_dims=1)

    def dense(self, x: ir.Value, matrix: Matrix) -> ir.Value:
        return Dense(self.dtype)(self.net, x, matrix)

    def mixture(self, x: ir.Value, router: ir.Value, mixture: Mixture) -> ir.Value:
        if self._sparse_bits is None:
            return fused_mixture(self.net, x, router, mixture)
        return quantized_mixture(self.net, x, router, mixture, self._sparse_bits, len(self._decoder.layers))

    def finish(self) -> KVLayout:
        for value, name in zip(self._presents, self._cache_names("present"), strict=True):
            self.net.output(value, name, self._stored, self._cache)
        decoder = self._decoder
        return KVLayout(
            layers=len(decoder.layers),
            kv_heads=decoder.kv_heads,
            head_dim=decoder.head_dim,
            dtype=str(self._stored.numpy()),
            shared_buffer=True,
            max_length=decoder.max_length,
            scales="channel" if self._quantized else None,
        )

    def _scales(self, index: int) -> list[ir.Value | None]:
        """What follows the rotary tables: no positions, bias or sinks, then the scales of keys and of values."""
        if not self._quantized:
            return []
        shape = self._decoder.kv_heads, self._decoder.head_dim
        return [None, None, None, *(self.net.weight(scale_weight(index, part, *shape)) for part in PARTS)]

    def _table(self, rotary: Rotary) -> tuple[ir.Value, ir.Value]:
        if rotary not in self._tables:
            self._tables[rotary] = cos_sin(self.net, rotary, self._decoder.max_length, self.dtype)
        return self._tables[rotary]

    def _cache_names(self, stem: str) -> Sequence[str]:
        return [f"{stem}.{index}.{part}" for index in range(len(self._decoder.layers)) for part in PARTS]
