"""Linear layers whose low-rank additions differ from row to row: eight experts decode in one call.

All adapters' A matrices stand side by side, all B matrices on top of each other; a mask keeps, of the product in
between, the columns of the row's own adapter. Both stay plain matrix products with constant weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.heads import place
from octavo.exporters.linear import Linear, Matrix
from octavo.exporters.lora import Adapter, Delta, stacked_name
from octavo.exporters.net import Net
from octavo.exporters.weights import Weight


@dataclass(slots=True)
class Stacked:
    """A linear layer in any precision, plus the addition of the adapter that each row names in `adapter_ids`."""

    inner: Linear
    adapters: Sequence[Adapter]
    dtype: ir.DataType
    _masks: dict[int, ir.Value] = field(default_factory=dict)
    _ids: ir.Value | None = None

    @property
    def shares_table(self) -> bool:
        return self.inner.shares_table

    def __call__(self, net: Net, x: ir.Value, matrix: Matrix) -> ir.Value:
        product = self.inner(net, x, matrix)
        deltas = self._deltas(matrix.sources[0])
        if not deltas:
            return product
        rank = max(delta.rank for delta in deltas.values())
        low = net.op("Mul", net.op("MatMul", x, net.weight(self._a(matrix, deltas, rank))), self._mask(net, rank))
        return net.op("Add", product, net.op("MatMul", low, net.weight(self._b(matrix, deltas, rank))))

    def _deltas(self, module: str) -> Mapping[int, Delta]:
        return {index: a.deltas[module] for index, a in enumerate(self.adapters) if module in a.deltas}

    def _mask(self, net: Net, rank: int) -> ir.Value:
        """[batch, 1, adapters * rank]: one where a column belongs to the row's adapter."""
        if self._ids is None:
            ids = net.input("adapter_ids", ir.DataType.INT64, ["batch"])
            self._ids = net.op("Unsqueeze", ids, net.constant([1, 2], "axes"))
        if rank not in self._masks:
            owners = net.constant(np.arange(len(self.adapters)).repeat(rank), "owners")
            self._masks[rank] = net.op("Cast", net.op("Equal", self._ids, owners), to=self.dtype)
        return self._masks[rank]

    def _a(self, matrix: Matrix, deltas: Mapping[int, Delta], rank: int) -> Weight:
        """[inputs, adapters * rank]."""

        def make(*parts: Array) -> Array:
            stack = np.zeros((len(self.adapters), rank, matrix.inputs), np.float32)
            for index, part in zip(deltas, parts, strict=True):
                stack[index, : len(part)] = part if matrix.columns is None else place(part.T, matrix.columns).T
            return stack.reshape(-1, matrix.inputs).T

        shape = (matrix.inputs, len(self.adapters) * rank)
        return Weight(f"{matrix.name}.lora_a", self.dtype, shape, self._sources(matrix, deltas, "a"), make)

    def _b(self, matrix: Matrix, deltas: Mapping[int, Delta], rank: int) -> Weight:
        """[adapters * rank, outputs], each adapter's scale included."""

        def make(*parts: Array) -> Array:
            stack = np.zeros((len(self.adapters), rank, matrix.outputs), np.float32)
            for (index, delta), part in zip(deltas.items(), parts, strict=True):
                rows = part if matrix.rows is None else place(part, matrix.rows)
                stack[index, : part.shape[1]] = rows.T.astype(np.float32) * np.float32(delta.scale)
            return stack.reshape(-1, matrix.outputs)

        shape = (len(self.adapters) * rank, matrix.outputs)
        return Weight(f"{matrix.name}.lora_b", self.dtype, shape, self._sources(matrix, deltas, "b"), make)

    @staticmethod
    def _sources(matrix: Matrix, deltas: Mapping[int, Delta], part: str) -> tuple[str, ...]:
        return tuple(stacked_name(matrix.sources[0], index, part) for index in deltas)
