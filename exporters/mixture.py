"""Sparse feed-forward layers: each token runs the few experts that its router chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.net import MICROSOFT, Net
from octavo.exporters.spec import Experts
from octavo.exporters.weights import Weight


@dataclass(frozen=True, slots=True)
class Mixture:
    """One sparse layer: `prefix` is its place in the graph, `source` in the checkpoint."""

    prefix: str
    source: str
    experts: Experts
    hidden_size: int
    dtype: ir.DataType

    def stacked(
        self, net: Net, name: str, parts: tuple[str, ...], shape: tuple[int, int], transposed: bool
    ) -> ir.Value:
        """One matrix of every expert, [experts, *shape]; several parts are interleaved row by row.

        Graphs share weights by name, so that a matrix which one of them has turned has a name of its own.
        """
        sources, rows = self.sources(parts), self.rows

        def make(*matrices: Array) -> Array:
            return rows(*matrices).swapaxes(1, 2) if transposed else rows(*matrices)

        name = f"{self.prefix}.{name}{'.turned' if transposed else ''}"
        return net.weight(Weight(name, self.dtype, (self.experts.count, *shape), sources, make))

    def sources(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Checkpoint names of some matrices of every expert."""
        return tuple(f"{self.source}.experts.{e}.{part}.weight" for e in range(self.experts.count) for part in parts)

    def rows(self, *matrices: Array) -> Array:
        """The matrices of `sources` as one array, [experts, outputs, inputs]; several parts are interleaved."""
        count = self.experts.count
        stack = np.stack(matrices).reshape(count, len(matrices) // count, *matrices[0].shape)
        return stack.swapaxes(1, 2).reshape(count, -1, stack.shape[-1])


def fused_mixture(net: Net, x: ir.Value, router: ir.Value, mixture: Mixture) -> ir.Value:
    """ONNX Runtime's MoE operator: x [batch, sequence, hidden], router logits [batch, sequence, experts]."""
    experts, hidden = mixture.experts, mixture.hidden_size
    gate, up, down = experts.parts
    gate_up = mixture.stacked(net, "gate_up", (gate, up), (2 * experts.size, hidden), transposed=False)
    downs = mixture.stacked(net, "down", (down,), (hidden, experts.size), transposed=False)
    return mixed(net, "MoE", x, router, mixture, [gate_up, None, downs])


def mixed(
    net: Net,
    operator: str,
    x: ir.Value,
    router: ir.Value,
    mixture: Mixture,
    weights: Sequence[ir.Value | None],
    **more: Any,
) -> ir.Value:
    """One of ONNX Runtime's operators for sparse layers, with gate and up in one swiglu; `more` are its attributes."""
    experts = mixture.experts
    tokens = net.op("Reshape", router, net.constant([-1, experts.count], "tokens"))
    output = net.op(
        operator,
        *(x, tokens, *weights),
        domain=MICROSOFT,
        k=experts.chosen,
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=1.0,
        activation_beta=0.0,
        normalize_routing_weights=1,
        **more,
    )
    if experts.normalized:
        return output
    chances, _ = _chosen(net, router, experts)
    return net.op("Mul", output, net.op("Cast", _total(net, chances), to=mixture.dtype))


def dense_mixture(net: Net, x: ir.Value, router: ir.Value, mixture: Mixture) -> ir.Value:
    """The same by standard operators: all experts run, those not chosen weigh nothing."""
    experts, hidden = mixture.experts, mixture.hidden_size
    gate, up, down = (
        mixture.stacked(net, part, (stored,), shape, transposed=True)
        for part, stored, shape in zip(
            ("gate", "up", "down"),
            experts.parts,
            ((hidden, experts.size), (hidden, experts.size), (experts.size, hidden)),
            strict=True,
        )
    )
    wide = net.op("Unsqueeze", x, net.constant([1], "axis"))
    gated = net.op("MatMul", wide, gate)
    fed = net.op("Mul", net.op("Mul", gated, net.op("Sigmoid", gated)), net.op("MatMul", wide, up))
    shares = _shares(net, router, experts, mixture.dtype)
    return net.op(
        "ReduceSum", net.op("Mul", net.op("MatMul", fed, down), shares), net.constant([1], "axis"), keepdims=0
    )


def _shares(net: Net, router: ir.Value, experts: Experts, dtype: ir.DataType) -> ir.Value:
    """How much each expert counts for each token: [batch, experts, sequence, 1]."""
    largest, chances = _chosen(net, router, experts)
    least = net.op("ReduceMin", largest, net.constant([-1], "axis"), keepdims=1)
    kept = net.op("Mul", chances, net.op("Cast", net.op("GreaterOrEqual", chances, least), to=ir.DataType.FLOAT))
    if experts.normalized:
        kept = net.op("Div", kept, _total(net, kept))
    turned = net.op("Transpose", net.op("Cast", kept, to=dtype), perm=[0, 2, 1])
    return net.op("Unsqueeze", turned, net.constant([3], "axis"))


def _chosen(net: Net, router: ir.Value, experts: Experts) -> tuple[ir.Value, ir.Value]:
    """The probabilities of the chosen experts, largest first, and of all, in float32."""
    chances = net.op("Softmax", net.op("Cast", router, to=ir.DataType.FLOAT), axis=-1)
    largest, _ = net.ops("TopK", chances, net.constant([experts.chosen], "k"), outputs=2, axis=-1)
    return largest, chances


def _total(net: Net, x: ir.Value) -> ir.Value:
    return net.op("ReduceSum", x, net.constant([-1], "axis"), keepdims=1)
