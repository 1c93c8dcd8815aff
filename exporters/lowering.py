"""What a target must know how to draw: the parts of a decoder that differ between execution providers."""

from __future__ import annotations

from typing import Protocol

import onnx_ir as ir

from octavo.exporters.net import Net
from octavo.exporters.spec import Layer
from octavo.profiles.manifest import KVLayout


class Lowering(Protocol):
    """Draws one decoder on `net` in `dtype`. Hidden states are [batch, sequence, hidden_size]."""

    net: Net
    dtype: ir.DataType
    input_ids: ir.Value

    def norm(self, x: ir.Value, weight: ir.Value) -> ir.Value:
        """RMS norm over the last axis."""

    def add_norm(self, x: ir.Value, skip: ir.Value, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The RMS norm of `x + skip`, and the sum itself."""

    def attention(self, index: int, layer: Layer, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
        """Turn q and k, append k and v to layer `index`'s cache, attend. All are [batch, sequence, heads * head_dim]."""

    def pick(self, x: ir.Value) -> ir.Value:
        """Keep the picked positions: [batch, sequence, n] to [batch, picks, n]."""

    def finish(self) -> KVLayout:
        """Declare what is left to declare (the caches as outputs); called once, at the end."""
