"""Matrices of a decoder, as a graph multiplies by them: `x @ W + b` in some precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.heads import place
from octavo.exporters.net import Net
from octavo.exporters.weights import Weight


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear layer of `inputs` to `outputs` elements, made of one or more checkpoint layers side by side.

    Each source is a prefix: `<source>.weight` is [its outputs, inputs], `<source>.bias` its outputs. `rows` and
    `columns` give the stored output and input behind each of ours, -1 for a zero; None keeps them as they are.
    """

    name: str
    sources: tuple[str, ...]
    inputs: int
    outputs: int
    bias: bool = False
    rows: Array | None = None
    columns: Array | None = None

    def stored(self, *weights: Array) -> Array:
        """The [outputs, inputs] matrix made of the sources' weights."""
        matrix = np.concatenate(weights) if len(weights) > 1 else weights[0]
        matrix = matrix if self.rows is None else place(matrix, self.rows)
        return matrix if self.columns is None else place(matrix.T, self.columns).T

    def transposed(self, *weights: Array) -> Array:
        """The [inputs, outputs] matrix."""
        return self.stored(*weights).T

    def vector(self, *biases: Array) -> Array:
        """The [outputs] bias."""
        vector = np.concatenate(biases)
        return vector if self.rows is None else place(vector, self.rows)


class Linear(Protocol):
    """Multiplies [..., inputs] by a matrix into [..., outputs] and adds its bias."""

    @property
    def shares_table(self) -> bool:
        """Whether a tied vocabulary reads the embedding's own table."""
        ...

    def __call__(self, net: Net, x: ir.Value, matrix: Matrix) -> ir.Value: ...


@dataclass(frozen=True, slots=True)
class Dense:
    """Full matrices in one floating-point type, stored as [inputs, outputs]."""

    dtype: ir.DataType

    @property
    def shares_table(self) -> bool:
        return True

    def __call__(self, net: Net, x: ir.Value, matrix: Matrix) -> ir.Value:
        shape = (matrix.inputs, matrix.outputs)
        weight = Weight(f"{matrix.name}.weight", self.dtype, shape, named(matrix.sources, "weight"), matrix.transposed)
        return add_bias(net, net.op("MatMul", x, net.weight(weight)), matrix, self.dtype)


def add_bias(net: Net, x: ir.Value, matrix: Matrix, dtype: ir.DataType) -> ir.Value:
    """Add the matrix's bias where it has one."""
    if not matrix.bias:
        return x
    bias = Weight(f"{matrix.name}.bias", dtype, (matrix.outputs,), named(matrix.sources, "bias"), matrix.vector)
    return net.op("Add", x, net.weight(bias))


def named(sources: Sequence[str], ending: str) -> tuple[str, ...]:
    return tuple(f"{source}.{ending}" for source in sources)
