"""Attention of octavo's own: what ONNX Runtime's gives, over the same cache, for prompts, chunks and single tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from octavo.profiles.manifest import KVLayout
from octavo.runtime.ort.fusing import fused
from octavo.runtime.ort.kernels import Kernels
from octavo.runtime.ort.providers import CPU
from octavo.runtime.ort.session import session_options

LENGTH = 160
KINDS: dict[str, dict[str, Any]] = {
    "grouped": {"heads": 6, "kv_heads": 2, "size": 16},
    "one head each": {"heads": 3, "kv_heads": 3, "size": 80},
    "one for all": {"heads": 8, "kv_heads": 1, "size": 64},
    "half turned, scaled": {"heads": 4, "kv_heads": 2, "size": 32, "turned": 8, "scale": 0.3},
    "window": {"heads": 4, "kv_heads": 2, "size": 32, "window": 21},
    "cap": {"heads": 4, "kv_heads": 2, "size": 32, "cap": 2.0},
}


class Attention:
    """One attention node and its cache of three rows."""

    def __init__(self, own: Kernels | None, kind: dict[str, Any]) -> None:
        self.own = own
        self.size, heads, few = kind["size"], kind["heads"], kind["kv_heads"]
        half = kind.get("turned", self.size // 2)
        angles = np.arange(LENGTH)[:, None] * 100.0 ** (-np.arange(half) / half)
        tables = [numpy_helper.from_array(f(angles).astype(np.float32), f.__name__) for f in (np.cos, np.sin)]
        rows = {"q": heads * self.size, "k": few * self.size, "v": few * self.size}
        cache = ["batch", few, LENGTH, self.size]
        shapes: dict[str, Any] = {name: ["batch", "sequence", width] for name, width in rows.items()}
        shapes |= {"keys": cache, "values": cache, "y": shapes["q"], "new_keys": cache, "new_values": cache}
        values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, side) for name, side in shapes.items()}
        for name, side in {"held": ["batch"], "total": [1]}.items():
            values[name] = helper.make_tensor_value_info(name, TensorProto.INT32, side)
        inputs, outputs = ["q", "k", "v", "keys", "values", "held", "total"], ["y", "new_keys", "new_values"]
        about = {"num_heads": heads, "kv_num_heads": few, "scale": kind.get("scale", 0.0), "do_rotary": 1}
        about |= {"softcap": kind.get("cap", 0.0), "local_window_size": kind.get("window", -1)}
        node = helper.make_node(
            "GroupQueryAttention", [*inputs, "cos", "sin"], outputs, domain="com.microsoft", **about
        )
        graph = helper.make_graph(
            [node], "attention", [values[n] for n in inputs], [values[n] for n in outputs], tables
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        layout = KVLayout(
            layers=1, kv_heads=few, head_dim=self.size, dtype="float32", shared_buffer=True, max_length=LENGTH
        )
        if own:
            assert fused(model, layout) != model
            model = fused(model, layout)
        self.session = ort.InferenceSession(model, session_options(2, own), providers=[CPU])
        self.rows, self.cache = rows, [np.zeros((3, few, LENGTH, self.size), np.float32) for _ in range(2)]

    def __call__(
        self, seed: int, first: int, lengths: list[int], sequence: int, after: int = 0, forks: Any = None
    ) -> Any:
        """Read random tokens, those `after` some, in the cache's rows from `first` on, which hold `lengths` with them.

        Octavo's attention is told of `forks`.

        Returns the real outputs.
        """
        rng, count = np.random.default_rng(seed), len(lengths)
        feeds: dict[str, Any] = {
            name: rng.standard_normal((3, LENGTH, width)).astype(np.float32)[:count, after : after + sequence]
            for name, width in self.rows.items()
        }
        feeds |= {"held": np.array(lengths, np.int32) - 1, "total": np.array([max(lengths)], np.int32)}
        if self.own:
            feeds["forks"] = np.array(forks or [(0, 0)] * count, np.int32)
        binding, y = self.session.io_binding(), np.zeros(feeds["q"].shape, np.float32)
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for part, whole in zip(("keys", "values"), self.cache, strict=True):
            rows = whole[first : first + count]
            binding.bind_cpu_input(part, rows)
            binding.bind_output(f"new_{part}", "cpu", 0, np.float32, rows.shape, rows.ctypes.data)
        binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
        self.session.run_with_iobinding(binding)
        return np.concatenate([row[: min(length, sequence)] for row, length in zip(y, lengths, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_get_what_onnx_runtimes_attention_gives(own: Kernels, kind: str) -> None:
    stock, ours = Attention(None, KINDS[kind]), Attention(own, KINDS[kind])
    for call in (
        (1, 0, [37, 100, 1], 100),  # ragged prompts
        (2, 0, [38, 101, 2], 1),
        (3, 1, [141], 40),  # a chunk
        (4, 0, [39, 142, 3], 1),
        (5, 2, [1], 1),  # a prompt of one token, where another was
    ):
        np.testing.assert_allclose(ours(*call), stock(*call), rtol=0, atol=3e-6)


def test_a_token_does_not_depend_on_what_is_computed_with_it(own: Kernels) -> None:
    together, alone = (Attention(own, KINDS["grouped"]) for _ in range(2))
    whole = together(1, 0, [120, 120, 120], 120)
    np.testing.assert_array_equal(alone(1, 0, [120], 120), whole[:120])
    np.testing.assert_array_equal(alone(1, 0, [70], 120), whole[:70])  # the same tokens, but only seventy are real
    np.testing.assert_array_equal(alone(1, 0, [120], 50, after=70), whole[70:120])
    np.testing.assert_array_equal(together(2, 0, [121, 121, 121], 1)[0], alone(2, 0, [121], 1)[0])


def test_what_is_not_finite_stays_in_its_row(own: Kernels) -> None:
    ours = Attention(own, KINDS["grouped"])
    ours(1, 0, [20, 20, 20], 20)
    ours.cache[0][1, :, 5] = np.nan
    got = ours(2, 0, [21, 21, 21], 1)
    assert np.isnan(got[1]).all()
    assert np.isfinite(got[[0, 2]]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shared", "lengths"), [(100, [101, 131, 112]), (7, [9, 33, 8]), (64, [65, 65, 65])])
def test_rows_that_share_a_beginning_get_what_each_gets_alone(
    own: Kernels, kind: str, shared: int, lengths: list[int]
) -> None:
    told, alone = (Attention(own, KINDS[kind]) for _ in range(2))
    for each in (told, alone):
        each(1, 0, [150, 150, 150], 150)
        for part in each.cache:
            part[1:, :, :shared] = part[0, :, :shared]
    for forks in ([(5, shared)] * 3, [(5, shared), (7, shared), (5, shared)], [(0, 0), (2, shared), (2, shared)]):
        np.testing.assert_array_equal(told(2, 0, lengths, 1, forks=forks), alone(2, 0, lengths, 1))
    for one, other in zip(told.cache, alone.cache, strict=True):
        np.testing.assert_array_equal(one, other)
