"""Weight-only quantization in blocks of 32: int8, and int4 with the sensitive matrices at int8 (k-quant mixed).

The quantizers are ONNX Runtime's own. Which matrices are sensitive follows llama.cpp's mixture: the vocabulary, and
the values and down projections of the first and last eighth of the layers and every third between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.linear import Matrix, add_bias, named
from octavo.exporters.net import MICROSOFT, Net
from octavo.exporters.weights import Weight

BLOCK = 32
ROWS_AT_ONCE = 2**22  # elements quantized together, to bound memory
SENSITIVE = re.compile(r"layers\.(\d+)\..*(v_proj|qkv_proj|down_proj)$")


@dataclass(frozen=True, slots=True)
class Blockwise:
    """MatMulNBits: `bits` per weight, activations and scales in `dtype`, `layers` in the decoder."""

    bits: int
    dtype: ir.DataType
    layers: int

    @property
    def shares_table(self) -> bool:
        """A tied vocabulary gets a quantized copy: the embedding's own would be read whole for every token."""
        return False

    def __call__(self, net: Net, x: ir.Value, matrix: Matrix) -> ir.Value:
        bits = 8 if self.bits == 8 or sensitive(matrix.name, self.layers) else 4
        product = net.op(
            "MatMulNBits",
            *(x, *(net.weight(part) for part in self._parts(matrix, bits))),
            domain=MICROSOFT,
            K=matrix.inputs,
            N=matrix.outputs,
            bits=bits,
            block_size=BLOCK,
            accuracy_level=4,
        )
        return add_bias(net, product, matrix, self.dtype)

    def _parts(self, matrix: Matrix, bits: int) -> list[Weight]:
        """The packed matrix and its scales, and for int4 its zero points."""
        blocks, rows = -(-matrix.inputs // BLOCK), matrix.outputs
        forms = [
            ("packed", ir.DataType.UINT8, (rows, blocks, BLOCK * bits // 8)),
            ("scales", self.dtype, (rows, blocks)),
            ("zero_points", ir.DataType.UINT8, (rows, (blocks + 1) // 2)),
        ][: 2 if bits == 8 else 3]

        def make(*weights: Array) -> tuple[Array, ...]:
            return (eight_bits if bits == 8 else four_bits)(matrix.stored(*weights))

        sources = named(matrix.sources, "weight")
        return [
            Weight(f"{matrix.name}.{part}", dtype, shape, sources, make, part=index)
            for index, (part, dtype, shape) in enumerate(forms)
        ]


def sensitive(name: str, layers: int) -> bool:
    """Whether a matrix keeps eight bits in the int4 mixture."""
    found = SENSITIVE.search(name)
    if found is None:
        return name == "lm_head"
    index = int(found[1])
    return index < layers // 8 or index >= 7 * layers // 8 or (index - layers // 8) % 3 == 2


def eight_bits(matrix: Array) -> tuple[Array, ...]:
    """[outputs, inputs] to packed [outputs, blocks, 32] and scales [outputs, blocks]; zero is 128."""
    padded = _padded(matrix)
    rows, blocks = padded.shape[0], padded.shape[1] // BLOCK
    from onnxruntime.capi._pybind_state import quantize_matmul_8bits

    packed, scales = np.zeros((rows, blocks, BLOCK), np.uint8), np.zeros((rows, blocks), np.float32)
    turned, unused = np.ascontiguousarray(padded.T), np.zeros((rows, blocks), np.uint8)
    quantize_matmul_8bits(packed, turned, scales, unused, BLOCK, rows, padded.shape[1], True)
    return packed, scales


def four_bits(matrix: Array) -> tuple[Array, ...]:
    """[outputs, inputs] to packed [outputs, blocks, 16], scales [outputs, blocks] and zero points, two in a byte."""
    step = max(1, ROWS_AT_ONCE // matrix.shape[1])
    parts = [_four_bits(_padded(matrix[start : start + step])) for start in range(0, len(matrix), step)]
    return tuple(np.concatenate(pieces) for pieces in zip(*parts, strict=True))


def _four_bits(padded: Array) -> tuple[Array, Array, Array]:
    from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

    rows, blocks = padded.shape[0], padded.shape[1] // BLOCK
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers, scales, zeros = quant_tensor_k_quant_cpu(padded, 4, BLOCK)
    points = np.full((rows, blocks + blocks % 2), 8, np.uint8)
    points[:, :blocks] = zeros.reshape(rows, blocks)
    return _nibbles(numbers.astype(np.uint8)).reshape(rows, blocks, -1), scales.reshape(rows, blocks), _nibbles(points)


def _nibbles(numbers: Array) -> Array:
    """Pairs of numbers below 16 in one byte, the first in the low half."""
    return np.asarray(numbers[..., 0::2] | (numbers[..., 1::2] << 4))


def _padded(matrix: Array) -> Array:
    """The matrix in float32, its rows filled up to whole blocks."""
    return np.pad(matrix.astype(np.float32), ((0, 0), (0, -matrix.shape[1] % BLOCK)))
