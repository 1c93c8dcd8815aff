"""A thin pen for drawing ONNX graphs with onnx-ir: named inputs and outputs, nodes, constants and weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.weights import Layout, Weight, external, lay_out
from octavo.profiles.manifest import TensorEntry

MICROSOFT = "com.microsoft"
PRODUCER = "octavo"


class Net:
    """A graph under construction; weights are declared with their recipe and get a place in a file at the end."""

    def __init__(self, name: str, opset: int):
        self.name = name
        self.opset = opset
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.weights: dict[str, Weight] = {}
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._names: Counter[str] = Counter()
        self._graph: ir.Graph | None = None

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self.outputs.append(value)

    def op(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Add a node with one output."""
        return self.ops(op_type, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: ir.Value | None, outputs: int, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """Add a node with several outputs."""
        name = self._unique(op_type)
        values = [ir.Value(name=f"{name}.{index}") for index in range(outputs)]
        converted = ir.convenience.convert_attributes(attributes)
        self._nodes.append(ir.Node(domain, op_type, inputs, converted, outputs=values, name=name))
        return values

    def constant(self, array: Array | Sequence[int] | int | float, name: str = "constant") -> ir.Value:
        """A small constant inside the graph; Python integers are int64, floats float32."""
        content = np.asarray(array)
        if content.dtype == np.float64:
            content = content.astype(np.float32)
        key = self._unique(name)
        return self._initializer(key, ir.Tensor(content, name=key))

    def weight(self, weight: Weight) -> ir.Value:
        """A weight from the checkpoint; asking twice for one name gives the same value."""
        if weight.name in self._initializers:
            return self._initializers[weight.name]
        self.weights[weight.name] = weight
        value = ir.Value(name=weight.name, type=ir.TensorType(weight.dtype), shape=ir.Shape(weight.shape))
        self._initializers[weight.name] = value
        return value

    def adopt(self, nodes: Sequence[ir.Node]) -> None:
        """Add nodes that were drawn elsewhere, after those drawn so far."""
        self._nodes += nodes

    def adopt_initializer(self, value: ir.Value, large: Weight | None) -> None:
        """Take over another graph's initializer, as a weight in a file where `large` says so."""
        adopted = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
        if large is not None:
            self.weights[large.name] = large
            adopted.type, adopted.shape = ir.TensorType(large.dtype), ir.Shape(large.shape)
        ir.convenience.replace_all_uses_with(value, adopted)
        self._initializers[str(value.name)] = adopted

    def model(self, layout: Layout) -> ir.Model:
        """The finished graph, its weights pointing into the layout's files."""
        for weight in self.weights.values():
            self._initializers[weight.name].const_value = external(weight, layout.places[weight.name])
        if self._graph is None:
            self._graph = self._finished()
        return ir.Model(self._graph, ir_version=10 if self.opset <= 22 else 11, producer_name=PRODUCER)

    def fingerprint(self) -> bytes:
        """Equal for graphs that differ at most in the content of their weights."""
        layout = lay_out(list(self.weights.values()), lambda weight: "weights")
        return bytes(ir.to_proto(self.model(layout)).SerializeToString(deterministic=True))

    def described(self) -> tuple[list[TensorEntry], list[TensorEntry]]:
        """Inputs and outputs as the manifest lists them."""
        return [_entry(value) for value in self.inputs], [_entry(value) for value in self.outputs]

    def _finished(self) -> ir.Graph:
        domains = {node.domain: 1 for node in self._nodes if node.domain}
        initializers = list(self._initializers.values())
        opsets = {"": self.opset} | domains
        return ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self._nodes,
            initializers=initializers,
            opset_imports=opsets,
            name=self.name,
        )

    def _initializer(self, name: str, tensor: ir.Tensor) -> ir.Value:
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        self._initializers[name] = value
        return value

    def _unique(self, stem: str) -> str:
        self._names[stem] += 1
        return f"{stem}_{self._names[stem]}"


def _entry(value: ir.Value) -> TensorEntry:
    assert value.name
    assert value.shape is not None
    assert value.dtype is not None
    shape = [size if isinstance(size, int) else str(size.value) for size in value.shape]
    return TensorEntry(name=value.name, dtype=str(value.dtype.numpy()), shape=shape)
