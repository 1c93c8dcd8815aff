"""Octavo's own operators in place of a graph's: the same numbers, for every row by the adapter that it names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from octavo.runtime.ort.fusing import fused
from octavo.runtime.ort.kernels import Kernels
from octavo.runtime.ort.providers import CPU
from octavo.runtime.ort.session import session_options

ADAPTERS = 3


def layer(k: int, n: int, rank: int) -> bytes:
    """A linear layer with stacked adapters, as octavo exports it; a row's factors are an input."""
    rng = np.random.default_rng(k)
    shapes = {"w": (k, n), "a": (k, ADAPTERS * rank), "b": (ADAPTERS * rank, n)}
    weights = [numpy_helper.from_array(rng.standard_normal(s, np.float32), name) for name, s in shapes.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("MatMul", ["x", "a"], ["low"]),
        helper.make_node("Mul", ["low", "factors"], ["masked"]),
        helper.make_node("MatMul", ["masked", "b"], ["addition"]),
        helper.make_node("Add", ["product", "addition"], ["y"]),
    ]
    sides = {"x": ["batch", "sequence", k], "factors": ["batch", 1, ADAPTERS * rank], "y": ["batch", "sequence", n]}
    x, factors, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, side) for name, side in sides.items())
    graph = helper.make_graph(nodes, "layer", [x, factors], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


def session(model: bytes, own: Kernels | None) -> Any:
    return ort.InferenceSession(model, session_options(2, own), providers=[CPU])


def feeds(batch: int, sequence: int, k: int, rank: int) -> dict[str, Any]:
    """Adapters in no order; the last row names one that is not there."""
    rng = np.random.default_rng(batch)
    owners = np.arange(ADAPTERS).repeat(rank)
    ids = rng.integers(0, ADAPTERS, batch)
    ids[-1] = ADAPTERS
    x = rng.standard_normal((batch, sequence, k)).astype(np.float32)
    return {"x": x, "factors": (ids[:, None, None] == owners).astype(np.float32)}


def test_a_graph_gets_one_operator_for_four() -> None:
    model = onnx.load_from_string(fused(layer(8, 8, 4)))
    assert [(node.domain, node.op_type) for node in model.graph.node] == [("", "MatMul"), ("octavo", "LowRank")]
    assert list(model.graph.node[1].input) == ["product", "x", "a", "b", "factors"]
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 21), ("octavo", 1)]


def test_what_something_else_reads_stays() -> None:
    model = onnx.load_from_string(layer(8, 8, 4))
    model.graph.output.append(helper.make_tensor_value_info("low", TensorProto.FLOAT, ["batch", "sequence", 12]))
    whole = model.SerializeToString()
    assert fused(whole) is whole


@pytest.mark.parametrize(("k", "n", "rank"), [(64, 48, 16), (7, 100, 3), (130, 17, 40), (400, 64, 8)])
def test_rows_get_the_numbers_of_the_whole_products(own: Kernels, k: int, n: int, rank: int) -> None:
    model = layer(k, n, rank)
    stock, whole, ours = session(model, None), session(model, own), session(fused(model), own)
    for batch, sequence in ((1, 1), (7, 1), (16, 1), (3, 130), (2, 5)):
        given = feeds(batch, sequence, k, rank)
        expected, apart, got = (each.run(None, given)[0] for each in (stock, whole, ours))
        np.testing.assert_array_equal(got, apart)
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_row_that_is_not_finite_spoils_no_other(own: Kernels) -> None:
    given = feeds(6, 1, 64, 16)
    given["x"][2, 0, 5] = np.nan
    got = session(fused(layer(64, 48, 16)), own).run(None, given)[0]
    assert np.isnan(got[2]).all()
    assert np.isfinite(np.delete(got, 2, 0)).all()
