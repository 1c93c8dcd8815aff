"""Draws a decoder from its description, once for all lowerings and precisions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.heads import fit_heads, place
from octavo.exporters.linear import Linear, Matrix
from octavo.exporters.lowering import Lowering
from octavo.exporters.mixture import Mixture
from octavo.exporters.outputs import Head, Outputs
from octavo.exporters.spec import Decoder, Experts, Layer
from octavo.exporters.weights import Weight


def as_stored(stored: Array) -> Array:
    return stored


class Drawing:
    """One decoder being drawn: each method adds one part of it to the lowering's graph."""

    def __init__(self, decoder: Decoder, lowering: Lowering, linear: Linear, outputs: Outputs):
        self.decoder, self.heads = fit_heads(decoder)
        self.lower = lowering
        self.net = lowering.net
        self.linear = linear
        self.out = Head(lowering.net, decoder, linear, lowering.dtype, outputs)

    def draw(self) -> None:
        """The whole decoder, embedding to outputs."""
        last = len(self.decoder.layers) - 1
        table = self.weight("embed_tokens.weight", (self.decoder.vocab_size, self.decoder.hidden_size))
        residual = self.embedding(table)
        normed = self.lower.norm(residual, self.norm_weight("layers.0.input_layernorm"))
        for index, layer in enumerate(self.decoder.layers):
            following = "norm" if index == last else f"layers.{index + 1}.input_layernorm"
            attended = self.attention(index, layer, normed)
            if index == last:
                attended, residual = self.lower.pick(attended), self.lower.pick(residual)
            normed, residual = self.rest(index, attended, residual, following)
        self.out.draw(normed, table)

    def embedding(self, table: ir.Value) -> ir.Value:
        x = self.net.op("Gather", table, self.lower.input_ids)
        if self.decoder.embedding_scale is None:
            return x
        scale = np.array(self.decoder.embedding_scale, np.float32).astype(self.lower.dtype.numpy())
        return self.net.op("Mul", x, self.net.constant(scale, "embedding_scale"))

    def attention(self, index: int, layer: Layer, normed: ir.Value) -> ir.Value:
        """[batch, sequence, heads * head_dim], before the output projection."""
        prefix = f"layers.{index}.self_attn"
        q, k, v = self.fused(prefix, normed) if self.decoder.fused_qkv else self.separate(prefix, normed)
        if self.decoder.qk_norm:
            q, k = self.head_norm(f"{prefix}.q_norm", q), self.head_norm(f"{prefix}.k_norm", k)
        return self.lower.attention(index, layer, q, k, v)

    def separate(self, prefix: str, x: ir.Value) -> tuple[ir.Value, ...]:
        """Queries, keys and values of layers of their own."""
        parts = zip("qkv", self.widths(), self.placements(), strict=True)
        return tuple(
            self.project(f"{prefix}.{part}_proj", x, width, self.decoder.qkv_bias, rows) for part, width, rows in parts
        )

    def fused(self, prefix: str, x: ir.Value) -> tuple[ir.Value, ...]:
        """Queries, keys and values of one layer, end to end."""
        widths, starts = self.widths(), np.cumsum([0, *self.widths(stored=True)])
        rows = [
            np.where(r < 0, -1, r + start) for r, start in zip(self.placements(), starts, strict=False) if r is not None
        ]
        order = np.concatenate(rows) if rows else None
        packed = self.project(f"{prefix}.qkv_proj", x, sum(widths), self.decoder.qkv_bias, order)
        return tuple(self.net.ops("Split", packed, self.net.constant(widths, "widths"), outputs=3, axis=-1))

    def widths(self, *, stored: bool = False) -> list[int]:
        """Elements of queries, keys and values."""
        size = self.heads.stored if stored else self.decoder.head_dim
        return [count * size for count in (self.decoder.heads, self.decoder.kv_heads, self.decoder.kv_heads)]

    def placements(self) -> tuple[Array | None, Array | None, Array | None]:
        """Where the rows of the query, key and value projections come from; None: as they are."""
        if not self.heads.padded:
            return None, None, None
        many, few, rows = self.decoder.heads, self.decoder.kv_heads, self.heads.rows
        return rows(many, turned=True), rows(few, turned=True), rows(few, turned=False)

    def head_norm(self, prefix: str, x: ir.Value) -> ir.Value:
        """The RMS norm of each head of [batch, sequence, heads * head_dim]; zeros of a padded head do not count."""
        size, stored = self.decoder.head_dim, self.heads.stored
        heads = self.net.op("Reshape", x, self.net.constant([0, 0, -1, size], "heads"))
        weight = self.weight(f"{prefix}.weight", (size,), self.spread_norm)
        normed = self.lower.norm(heads, weight, self.decoder.norm_epsilon * stored / size)
        return self.net.op("Reshape", normed, self.net.constant([0, 0, -1], "flat"))

    def spread_norm(self, stored: Array) -> Array:
        """A head norm's weight in a padded head: its mean is over more elements, its sum is not."""
        weight = self.offset_norm(stored)
        if not self.heads.padded:
            return weight
        ratio = np.float32((self.heads.stored / self.decoder.head_dim) ** 0.5)
        return place(weight.astype(np.float32) * ratio, np.array(self.heads.turned))

    def rest(self, index: int, attended: ir.Value, residual: ir.Value, following: str) -> tuple[ir.Value, ir.Value]:
        """What a layer does after attention, up to the norm that follows it: (normed, residual)."""
        prefix = f"layers.{index}"
        mixed = self.output(f"{prefix}.self_attn.o_proj", attended)
        if not self.decoder.sandwich_norms:
            normed, residual = self.add_norm(residual, mixed, f"{prefix}.post_attention_layernorm")
            return self.add_norm(residual, self.feed_forward(index, normed), following)
        mixed = self.norm(mixed, f"{prefix}.post_attention_layernorm")
        normed, residual = self.add_norm(residual, mixed, f"{prefix}.pre_feedforward_layernorm")
        fed = self.norm(self.feed_forward(index, normed), f"{prefix}.post_feedforward_layernorm")
        return self.add_norm(residual, fed, following)

    def output(self, prefix: str, attended: ir.Value) -> ir.Value:
        """The projection of all heads back to the hidden size."""
        inputs = self.decoder.heads * self.decoder.head_dim
        columns = self.heads.rows(self.decoder.heads, turned=False) if self.heads.padded else None
        sources, hidden = (f"model.{prefix}",), self.decoder.hidden_size
        matrix = Matrix(prefix, sources, inputs, hidden, self.decoder.output_bias, columns=columns)
        return self.linear(self.net, attended, matrix)

    def feed_forward(self, index: int, x: ir.Value) -> ir.Value:
        experts, prefix = self.decoder.experts, f"layers.{index}"
        if experts is None or index in self.decoder.dense_layers:
            return self.gated(f"{prefix}.mlp", x)
        return self.mixture(prefix, x, experts)

    def gated(self, prefix: str, x: ir.Value) -> ir.Value:
        """down(activation(gate(x)) * up(x))."""
        size, bias = self.decoder.intermediate_size, self.decoder.mlp_bias
        if self.decoder.fused_gate_up:
            packed = self.project(f"{prefix}.gate_up_proj", x, 2 * size, bias)
            gate, up = self.net.ops("Split", packed, outputs=2, axis=-1, num_outputs=2)
        else:
            gate, up = (self.project(f"{prefix}.{part}_proj", x, size, bias) for part in ("gate", "up"))
        fed = self.net.op("Mul", self.activation(gate), up)
        down = Matrix(f"{prefix}.down_proj", (f"model.{prefix}.down_proj",), size, self.decoder.hidden_size, bias)
        return self.linear(self.net, fed, down)

    def mixture(self, prefix: str, x: ir.Value, experts: Experts) -> ir.Value:
        source = f"model.{prefix}.{experts.source}"
        router = self.lower.dense(
            x, Matrix(f"{prefix}.router", (f"{source}.gate",), self.decoder.hidden_size, experts.count)
        )
        layer = Mixture(f"{prefix}.experts", source, experts, self.decoder.hidden_size, self.lower.dtype)
        return self.lower.mixture(x, router, layer)

    def activation(self, x: ir.Value) -> ir.Value:
        match self.decoder.activation:
            case "silu":
                return self.net.op("Mul", x, self.net.op("Sigmoid", x))
            case "relu":
                return self.net.op("Relu", x)
            case "gelu":
                return self.net.op("Gelu", x)
            case "gelu_tanh":
                return self.net.op("Gelu", x, approximate="tanh")

    def project(self, prefix: str, x: ir.Value, outputs: int, bias: bool, rows: Array | None = None) -> ir.Value:
        """A linear layer of the hidden state."""
        matrix = Matrix(prefix, (f"model.{prefix}",), self.decoder.hidden_size, outputs, bias, rows)
        return self.linear(self.net, x, matrix)

    def norm(self, x: ir.Value, prefix: str) -> ir.Value:
        return self.lower.norm(x, self.norm_weight(prefix))

    def add_norm(self, x: ir.Value, skip: ir.Value, prefix: str) -> tuple[ir.Value, ir.Value]:
        return self.lower.add_norm(x, skip, self.norm_weight(prefix))

    def norm_weight(self, prefix: str) -> ir.Value:
        return self.weight(f"{prefix}.weight", (self.decoder.hidden_size,), self.offset_norm)

    def offset_norm(self, stored: Array) -> Array:
        offset = np.float32(self.decoder.norm_offset)
        return stored.astype(np.float32) + offset if offset else stored

    def weight(self, name: str, shape: tuple[int, ...], make: Callable[[Array], Array] = as_stored) -> ir.Value:
        return self.net.weight(Weight(name, self.lower.dtype, shape, (f"model.{name}",), make))
