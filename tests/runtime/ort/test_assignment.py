"""Every node of a model runs where it was asked to, or the model is refused by the nodes' names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.profiles.errors import MachineError
from octavo.profiles.manifest import read_manifest
from octavo.runtime.ort.assignment import Assigned, assigned, check_assignment, strays
from octavo.runtime.ort.nodes import read_nodes, shape_nodes
from octavo.runtime.ort.providers import CPU, CUDA, TENSORRT
from octavo.runtime.ort.session import Device, Model, open_model
from octavo.runtime.ort.survey import survey


class Recorded:
    """A session's record as ONNX Runtime gives it: one part per provider and subgraph."""

    def __init__(self, *nodes: Assigned) -> None:
        self.nodes = nodes

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [_Part(node) for node in self.nodes]


class _Part:
    def __init__(self, node: Assigned) -> None:
        self.ep_name = node.provider
        self._nodes = [node]

    def get_nodes(self) -> list[Assigned]:
        return self._nodes


def graph(*nodes: tuple[str, str, list[str]]) -> bytes:
    """A serialized graph of nodes (name, operator, inputs), each with the output `<name>:0`."""
    onnx = pytest.importorskip("onnx")
    made = [onnx.helper.make_node(kind, inputs, [f"{name}:0"], name=name) for name, kind, inputs in nodes]
    numbers = onnx.numpy_helper.from_array(np.array([0, 1]), "numbers")
    weights = onnx.numpy_helper.from_array(np.ones(2, "float32"), "weights")
    content: bytes = onnx.helper.make_model(
        onnx.helper.make_graph(made, "g", [], [], [numbers, weights])
    ).SerializeToString()
    return content


SHAPES = graph(
    ("size", "Shape", ["x"]),
    ("count", "Gather", ["size:0", "numbers"]),
    ("wide", "Concat", ["count:0", "numbers"]),
    ("flat", "Reshape", ["x", "wide:0"]),
    ("look", "Gather", ["weights", "x"]),
    ("twice", "Mul", ["weights", "weights"]),
)


def opened(bundle: Path) -> Model:
    manifest = read_manifest(bundle)
    return open_model(bundle, manifest, "m", manifest.experts[0].weights, CPU, Device("cpu"), 1)


def test_all_of_a_model_on_the_cpu_runs_on_the_cpu(bundle: Path) -> None:
    model = opened(bundle)
    nodes = assigned(model.session)
    assert {node.provider for node in nodes} == {CPU}
    assert {"GroupQueryAttention", "MatMul"} <= {node.op_type for node in nodes}
    assert all(node.name for node in nodes)
    assert model.fallback is None


@pytest.mark.parametrize("wanted", [CUDA, TENSORRT])
def test_a_model_that_runs_elsewhere_is_refused_by_its_nodes_unless_that_is_allowed(bundle: Path, wanted: str) -> None:
    """The real record of a session on the CPU, held against another wish."""
    session, path = opened(bundle).session, next(bundle.glob("*/model.onnx"))
    with pytest.raises(MachineError, match=rf"of \d+ nodes do not run on {wanted}: .*\(\w+\) on CPUExecution.*MatMul"):
        check_assignment("m", session, wanted, path.read_bytes)
    said = check_assignment("m", session, wanted, path.read_bytes, allow_fallback=True)
    assert said is not None
    assert said.startswith("m: ")


def test_only_what_computes_shapes_may_stay_on_the_cpu_beside_cuda() -> None:
    assert shape_nodes(SHAPES) == {"size", "count", "wide"}
    names = ("size", "count", "wide", "flat", "look", "twice")
    nodes = [Assigned(name, "-", CPU) for name in names]
    assert [node.name for node in strays(nodes, CUDA, lambda: SHAPES)] == ["flat", "look", "twice"]
    assert strays(nodes[:3], CUDA, lambda: SHAPES) == []
    assert [node.name for node in strays(nodes, TENSORRT, lambda: SHAPES)] == list(names)
    assert strays(nodes, CPU, lambda: SHAPES) == []


def test_a_node_between_providers_is_named() -> None:
    session = Recorded(
        Assigned("a", "MatMul", TENSORRT), Assigned("b", "TopK", CUDA), *[Assigned("c", "Tanh", CPU)] * 6
    )
    with pytest.raises(MachineError, match=r"7 of 8 nodes .* b \(TopK\) on CUDA.*, and 2 Tanh"):
        check_assignment("m", session, TENSORRT, lambda: b"")
    assert check_assignment("m", Recorded(Assigned("a", "MatMul", CUDA)), CUDA, lambda: b"") is None


def test_the_graph_reader_agrees_with_onnx(bundle: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = next(bundle.glob("*/model.onnx"))
    for ours, theirs in zip(
        read_nodes(path.read_bytes()), onnx.load(path, load_external_data=False).graph.node, strict=True
    ):
        assert (ours.name, ours.op_type) == (theirs.name, theirs.op_type)
        assert (list(ours.inputs), list(ours.outputs)) == (list(theirs.input), list(theirs.output))


def test_a_survey_counts_the_nodes_of_every_graph(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    found = survey(bundle, manifest, "cpu")
    assert [each.graph for each in found] == [graph.name for graph in manifest.graphs]
    assert all(set(each.nodes) == {CPU} and each.nodes[CPU] > 10 and each.fallback is None for each in found)
