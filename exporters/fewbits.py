"""Sparse layers in few bits: ONNX Runtime's QMoE, with the blocks, and the mixture of widths, of the linear layers."""

from __future__ import annotations

import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.mixture import Mixture, mixed
from octavo.exporters.net import Net
from octavo.exporters.quantize import BLOCK, eight_bits, four_bits, sensitive
from octavo.exporters.weights import Weight
from octavo.profiles.errors import BundleError

RAW = 0  # of `weights_prepacked`: as the quantizers give them, for every provider


def quantized_mixture(net: Net, x: ir.Value, router: ir.Value, mixture: Mixture, bits: int, layers: int) -> ir.Value:
    """A sparse layer of a decoder of `layers` layers: x [batch, sequence, hidden], router logits in full precision.

    Raises BundleError where the layer is not made of whole blocks.
    """
    experts, hidden = mixture.experts, mixture.hidden_size
    if hidden % BLOCK or experts.size % BLOCK:
        raise BundleError(
            f"{mixture.source}: sparse layers in int8 or int4 need sizes that {BLOCK} divides, not {hidden} and"
            f" {experts.size}; fp32, fp16 and bf16 take any"
        )
    gate, up, down = experts.parts
    if sensitive(f"{mixture.prefix}.down_proj", layers):
        bits = 8  # of the whole layer: the operator's CPU kernel takes no two widths
    wide, wide_scales, wide_zeros = _stored(net, mixture, "gate_up", (gate, up), (2 * experts.size, hidden), bits)
    back, back_scales, back_zeros = _stored(net, mixture, "down", (down,), (hidden, experts.size), bits)
    weights = [wide, wide_scales, None, back, back_scales, None, None, None, None, wide_zeros, back_zeros]
    return mixed(
        *(net, "QMoE", x, router, mixture, weights),
        quant_type="int",
        block_size=BLOCK,
        expert_weight_bits=bits,
        weights_prepacked=RAW,
        accuracy_level=4,
    )


def _stored(
    net: Net, mixture: Mixture, name: str, parts: tuple[str, ...], shape: tuple[int, int], bits: int
) -> list[ir.Value | None]:
    """A matrix of every expert: packed, its scales, and for int4 its zero points; [experts, outputs, ...] each."""
    count, (rows, inputs) = mixture.experts.count, shape
    blocks = inputs // BLOCK
    forms = [
        ("packed", ir.DataType.UINT8, (count, rows, inputs * bits // 8)),
        ("scales", mixture.dtype, (count, rows, blocks)),
        ("zero_points", ir.DataType.UINT8, (count, rows, (blocks + 1) // 2)),
    ][: 2 if bits == 8 else 3]

    def make(*matrices: Array) -> tuple[Array, ...]:
        flat = mixture.rows(*matrices).reshape(count * rows, inputs)
        quantized = (eight_bits if bits == 8 else four_bits)(flat)
        return tuple(part.reshape(form) for part, (_, _, form) in zip(quantized, forms, strict=True))

    sources = mixture.sources(parts)
    found: list[ir.Value | None] = [
        net.weight(Weight(f"{mixture.prefix}.{name}.{part}", dtype, form, sources, make, part=index))
        for index, (part, dtype, form) in enumerate(forms)
    ]
    return found if bits == 4 else [*found, None]
