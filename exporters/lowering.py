"""What a target must know how to draw: the parts of a decoder that differ between execution providers."""

from __future__ import annotations

from typing import Protocol

import onnx_ir as ir

from octavo.exporters.linear import Matrix
from octavo.exporters.mixture import Mixture
from octavo.exporters.net import Net
from octavo.exporters.spec import Layer
from octavo.profiles.manifest import KVLayout


class Lowering(Protocol):
    """Draws one decoder on `net` in `dtype`. Hidden states are [batch, sequence, hidden_size]."""

    net: Net
    dtype: ir.DataType
    input_ids: ir.Value

    def norm(self, x: ir.Value, weight: ir.Value, epsilon: float | None = None) -> ir.Value:
        """RMS norm over the last axis; the decoder's epsilon where none is given."""

    def add_norm(self, x: ir.Value, skip: ir.Value, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The RMS norm of `x + skip`, and the sum itself."""

    def attention(self, index: int, layer: Layer, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
        """Turn q and k, append k and v to layer `index`'s cache, attend: all [batch, sequence, heads * head_dim]."""

    def pick(self, x: ir.Value) -> ir.Value:
        """Keep the picked positions: [batch, sequence, n] to [batch, picks, n]."""

    def dense(self, x: ir.Value, matrix: Matrix) -> ir.Value:
        """A linear layer that no precision makes smaller."""

    def mixture(self, x: ir.Value, router: ir.Value, mixture: Mixture) -> ir.Value:
        """A sparse feed-forward layer; `router` is its logits, [batch, sequence, experts]."""

    def finish(self) -> KVLayout:
        """Declare what is left to declare (the caches as outputs); called once, at the end."""
