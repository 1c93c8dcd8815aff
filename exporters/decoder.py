"""Draws a decoder from its description, once for all lowerings and precisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.linear import Linear, Matrix
from octavo.exporters.lowering import Lowering
from octavo.exporters.spec import Decoder, Layer
from octavo.exporters.weights import Weight

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a graph gives besides its cache: all logits, or the `top_k` largest; and the last hidden state."""

    top_k: int | None = None
    hidden: bool = False


class Drawing:
    """One decoder being drawn: each method adds one part of it to the lowering's graph."""

    def __init__(self, decoder: Decoder, lowering: Lowering, linear: Linear, outputs: Outputs):
        self.decoder = decoder
        self.lower = lowering
        self.net = lowering.net
        self.linear = linear
        self.outputs = outputs

    def draw(self) -> None:
        """The whole decoder, embedding to outputs."""
        residual = self.embedding()
        normed = self.lower.norm(residual, self.norm_weight("layers.0.input_layernorm"))
        for index, layer in enumerate(self.decoder.layers):
            attended = self.attention(index, layer, normed)
            if index == len(self.decoder.layers) - 1:
                attended, residual = self.lower.pick(attended), self.lower.pick(residual)
            normed, residual = self.feed_forward(index, attended, residual)
        self.head(normed)

    def embedding(self) -> ir.Value:
        x = self.net.op("Gather", self.embedding_table(), self.lower.input_ids)
        if self.decoder.embedding_scale is None:
            return x
        scale = np.array(self.decoder.embedding_scale, np.float32).astype(self.lower.dtype.numpy())
        return self.net.op("Mul", x, self.net.constant(scale, "embedding_scale"))

    def embedding_table(self) -> ir.Value:
        shape = (self.decoder.vocab_size, self.decoder.hidden_size)
        return self.weight("embed_tokens.weight", shape)

    def attention(self, index: int, layer: Layer, normed: ir.Value) -> ir.Value:
        """[batch, sequence, heads * head_dim], before the output projection."""
        q, k, v = self.queries_keys_values(f"layers.{index}.self_attn", normed)
        return self.lower.attention(index, layer, q, k, v)

    def queries_keys_values(self, prefix: str, normed: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        sizes = [count * self.decoder.head_dim for count in (self.decoder.heads, *[self.decoder.kv_heads] * 2)]
        if self.decoder.fused_qkv:
            packed = self.project(f"{prefix}.qkv_proj", normed, sum(sizes), self.decoder.qkv_bias)
            q, k, v = self.net.ops("Split", packed, self.net.constant(sizes, "sizes"), outputs=3, axis=-1)
        else:
            q, k, v = (
                self.project(f"{prefix}.{part}_proj", normed, size, self.decoder.qkv_bias)
                for part, size in zip("qkv", sizes, strict=True)
            )
        if self.decoder.qk_norm:
            q, k = self.head_norm(f"{prefix}.q_norm", q, sizes[0]), self.head_norm(f"{prefix}.k_norm", k, sizes[1])
        return q, k, v

    def head_norm(self, prefix: str, x: ir.Value, size: int) -> ir.Value:
        """The RMS norm of each head of [batch, sequence, size]."""
        heads = self.net.op("Reshape", x, self.net.constant([0, 0, -1, self.decoder.head_dim], "heads"))
        normed = self.lower.norm(heads, self.norm_weight(prefix, self.decoder.head_dim))
        return self.net.op("Reshape", normed, self.net.constant([0, 0, size], "flat"))

    def feed_forward(self, index: int, attended: ir.Value, residual: ir.Value) -> tuple[ir.Value, ir.Value]:
        """What follows attention, up to the next layer's (or the final) norm: (normed, residual)."""
        prefix = f"layers.{index}"
        last = index == len(self.decoder.layers) - 1
        following = "norm" if last else f"layers.{index + 1}.input_layernorm"
        mixed = self.project(f"{prefix}.self_attn.o_proj", attended, self.decoder.hidden_size, self.decoder.output_bias)
        if not self.decoder.sandwich_norms:
            normed, residual = self.add_norm(residual, mixed, f"{prefix}.post_attention_layernorm")
            return self.add_norm(residual, self.gated(f"{prefix}.mlp", normed), following)
        mixed = self.lower.norm(mixed, self.norm_weight(f"{prefix}.post_attention_layernorm"))
        normed, residual = self.add_norm(residual, mixed, f"{prefix}.pre_feedforward_layernorm")
        fed = self.lower.norm(
            self.gated(f"{prefix}.mlp", normed), self.norm_weight(f"{prefix}.post_feedforward_layernorm")
        )
        return self.add_norm(residual, fed, following)

    def gated(self, prefix: str, x: ir.Value) -> ir.Value:
        """down(activation(gate(x)) * up(x))."""
        size, bias = self.decoder.intermediate_size, self.decoder.mlp_bias
        if self.decoder.fused_gate_up:
            packed = self.project(f"{prefix}.gate_up_proj", x, 2 * size, bias)
            gate, up = self.net.ops("Split", packed, outputs=2, axis=-1, num_outputs=2)
        else:
            gate, up = (self.project(f"{prefix}.{part}_proj", x, size, bias) for part in ("gate", "up"))
        return self.project(
            f"{prefix}.down_proj", self.net.op("Mul", self.activation(gate), up), self.decoder.hidden_size, bias, size
        )

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

    def head(self, hidden: ir.Value) -> None:
        """Outputs from the final norm's [batch, picks, hidden_size]."""
        if self.decoder.head == "score":
            score = self.float32(
                self.linear(self.net, hidden, Matrix("score", ("score",), self.decoder.hidden_size, 1))
            )
            self.net.output(self.net.op("Squeeze", score, self.net.constant([2], "axis")), "score_logit", FLOAT, PICKS)
        else:
            self.logits(hidden)
        if self.outputs.hidden:
            self.net.output(self.float32(hidden), "hidden", FLOAT, [*PICKS, self.decoder.hidden_size])

    def logits(self, hidden: ir.Value) -> None:
        logits = self.float32(self.vocabulary(hidden))
        if cap := self.decoder.logit_cap:
            factor = self.net.constant(cap, "logit_cap")
            logits = self.net.op("Mul", self.net.op("Tanh", self.net.op("Div", logits, factor)), factor)
        if not (k := self.outputs.top_k):
            return self.net.output(logits, "logits", FLOAT, [*PICKS, self.decoder.vocab_size])
        values, ids = self.net.ops("TopK", logits, self.net.constant([k], "k"), outputs=2, axis=-1)
        total = self.net.op("ReduceLogSumExp", logits, self.net.constant([2], "axis"), keepdims=0)
        self.net.output(values, "top_values", FLOAT, [*PICKS, k])
        self.net.output(ids, "top_ids", INT64, [*PICKS, k])
        return self.net.output(total, "logsumexp", FLOAT, PICKS)

    def vocabulary(self, hidden: ir.Value) -> ir.Value:
        """Unscaled logits; a tied table is stored once, as the embedding has it, and read transposed."""
        if not self.decoder.tied:
            return self.linear(
                self.net, hidden, Matrix("lm_head", ("lm_head",), self.decoder.hidden_size, self.decoder.vocab_size)
            )
        rows = self.net.op("Reshape", hidden, self.net.constant([-1, self.decoder.hidden_size], "rows"))
        flat = self.net.op("Gemm", rows, self.embedding_table(), transB=1)
        shape = self.net.op("Concat", self.net.op("Shape", hidden, end=2), self.net.constant([-1], "rest"), axis=0)
        return self.net.op("Reshape", flat, shape)

    def project(self, prefix: str, x: ir.Value, outputs: int, bias: bool, inputs: int | None = None) -> ir.Value:
        if prefix.endswith("o_proj"):
            inputs = self.decoder.heads * self.decoder.head_dim
        return self.linear(
            self.net, x, Matrix(prefix, (f"model.{prefix}",), inputs or self.decoder.hidden_size, outputs, bias)
        )

    def add_norm(self, x: ir.Value, skip: ir.Value, prefix: str) -> tuple[ir.Value, ir.Value]:
        return self.lower.add_norm(x, skip, self.norm_weight(prefix))

    def norm_weight(self, prefix: str, size: int | None = None) -> ir.Value:
        return self.weight(f"{prefix}.weight", (size or self.decoder.hidden_size,), self.decoder.norm_offset)

    def weight(self, name: str, shape: tuple[int, ...], offset: float = 0.0) -> ir.Value:
        def make(stored: Array) -> Array:
            return stored.astype(np.float32) + np.float32(offset) if offset else stored

        return self.net.weight(Weight(name, self.lower.dtype, shape, (f"model.{name}",), make))

    def float32(self, x: ir.Value) -> ir.Value:
        return x if self.lower.dtype == FLOAT else self.net.op("Cast", x, to=FLOAT)


PICKS: list[int | str] = ["batch", "picks"]
