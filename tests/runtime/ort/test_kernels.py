"""Octavo's own products: ONNX Runtime's results from any shape, by any instructions, and nothing slow in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from octavo.cli import main
from octavo.profiles.errors import MachineError
from octavo.runtime.local import Octavo
from octavo.runtime.ort import kernels as module
from octavo.runtime.ort.kernels import STOCK, Kernels, compile_kernels, kernels, remove_kernels
from octavo.runtime.ort.pages import let_go
from octavo.runtime.ort.providers import CPU
from octavo.runtime.ort.session import session_options

ROWS = (1, 2, 5, 6, 7, 16, 33, 128)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sources that nobody has compiled."""
    shutil.copytree(module.SOURCES, tmp_path / "native", ignore=shutil.ignore_patterns("*.so"))
    monkeypatch.setattr(module, "SOURCES", tmp_path / "native")
    kernels.cache_clear()
    yield
    kernels.cache_clear()


def session(nodes: list[Any], columns: tuple[int, int], constants: dict[str, Any], own: Kernels | None) -> Any:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["m", c]) for n, c in zip("xy", columns, strict=True)]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return ort.InferenceSession(model, session_options(2, own), providers=[CPU])


def dense(k: int, n: int, own: Kernels | None, *, half: bool) -> Any:
    weight = np.random.default_rng(k).standard_normal((k, n)).astype(np.float32)
    if half:
        weight = (weight.view(np.uint32) & 0xFFFF0000).view(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])]
    return session(nodes, (k, n), {"w": weight, "b": np.arange(n, dtype=np.float32)}, own)


def few(k: int, n: int, own: Kernels | None, *, bits: int, zeros: bool) -> Any:
    rng, blocks = np.random.default_rng(k), -(-k // 32)
    constants = {
        "w": rng.integers(0, 256, (n, blocks, 4 * bits), dtype=np.uint8),
        "s": rng.random(n * blocks, np.float32),
    }
    if zeros:
        constants["z"] = rng.integers(0, 256, n * -(-blocks * bits // 8), dtype=np.uint8)
    sizes = {"K": k, "N": n, "bits": bits, "block_size": 32, "accuracy_level": 4}
    node = helper.make_node("MatMulNBits", ["x", *constants], ["y"], domain="com.microsoft", **sizes)
    return session([node], (k, n), constants, own)


def given(rows: int, k: int) -> Any:
    return np.random.default_rng(rows).standard_normal((rows, k)).astype(np.float32)


def alike(stock: Any, ours: Any, k: int) -> None:
    for rows in ROWS:
        x = given(rows, k)
        expected, got = (each.run(None, {"x": x})[0] for each in (stock, ours))
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (7, 5), (65, 100), (768, 256), (400, 129)])
def test_full_matrices_give_what_onnx_runtimes_give(own: Kernels, k: int, n: int, half: bool) -> None:
    alike(dense(k, n, None, half=half), dense(k, n, own, half=half), k)


@pytest.mark.parametrize(("k", "n"), [(7, 17), (32, 5), (40, 33), (768, 100)])
def test_few_bits_give_what_onnx_runtimes_give(own: Kernels, k: int, n: int) -> None:
    for bits, zeros in product((4, 8), (False, True)):
        alike(few(k, n, None, bits=bits, zeros=zeros), few(k, n, own, bits=bits, zeros=zeros), k)


def test_a_row_does_not_depend_on_the_rows_beside_it(own: Kernels) -> None:
    makers = [dense(768, 100, own, half=half) for half in (False, True)]
    makers += [few(768, 100, own, bits=bits, zeros=True) for bits in (4, 8)]
    x = given(128, 768)
    for ours in makers:
        whole = ours.run(None, {"x": x})[0]
        for rows in ROWS:
            np.testing.assert_array_equal(ours.run(None, {"x": x[:rows]})[0], whole[:rows])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so_in_its_row_alone(own: Kernels, bad: float) -> None:
    x = given(8, 64)
    x[3, 40] = bad
    for ours in (dense(64, 20, own, half=True), few(64, 20, own, bits=4, zeros=True)):
        y = ours.run(None, {"x": x})[0]
        assert not np.isfinite(y[3]).any()
        assert np.isfinite(np.delete(y, 3, 0)).all()


@pytest.mark.parametrize("options", [{}, {"precision": "int4"}, {"adapters": True}])
def test_answers_are_the_same_and_say_whose_products(
    make_bundle: Callable[..., Path], own: Kernels, options: dict[str, object]
) -> None:
    said = []
    for wanted in (None, False):
        with Octavo.load(make_bundle(2, **options), threads=1, kernels=wanted) as octavo:
            result = octavo.ask("mids 52917340:", max_new_tokens=8, temperature=0, ends=False)
        assert result.kernels == octavo.about["kernels"]
        assert result.kernels.startswith(str(own)) if wanted is None else result.kernels == STOCK
        said.append([reply.text for reply in result.candidates])
    assert said[0] == said[1]


def test_rows_that_come_and_go_beside_it_change_no_text(make_bundle: Callable[..., Path], own: Kernels) -> None:
    """Samples that share a prompt read it together for as long as they are there, in whatever row they lie."""
    prompts = ["mids 52917340:", "ab", "count 4 from 3:", "a longer prompt than all of the others are"]
    with Octavo.load(make_bundle(2), threads=1, samples=3, kernels=True) as octavo:
        together = octavo.ask_many(prompts, seed=3, max_new_tokens=24)
        for number, (prompt, result) in enumerate(zip(prompts, together, strict=True)):
            alone = octavo.ask(prompt, seed=3, number=number, max_new_tokens=24)
            assert [reply.text for reply in result.candidates] == [reply.text for reply in alone.candidates]
    assert len({len(reply.text) for result in together for reply in result.candidates}) > 3


def test_what_was_asked_for_and_is_not_there_is_an_error(
    bundle: Path, nowhere: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MachineError, match="octavo kernels"):
        Octavo.load(bundle, kernels=True)
    assert main(["ask", str(bundle), "1", "--kernels"]) == 4
    assert "not compiled" in capsys.readouterr().err
    with Octavo.load(bundle) as octavo:
        assert octavo.about["kernels"] == f"{STOCK} (octavo's are not compiled: run `octavo kernels`)"


def test_kept_prepacked_weights_are_not_for_them(bundle: Path, own: Kernels) -> None:
    with pytest.raises(MachineError, match="prepacked"):
        Octavo.load(bundle, kernels=True, prepack=True)


def test_a_graph_that_is_not_for_them_runs_without(own: Kernels) -> None:
    from octavo.runtime.ort.session import with_kernels

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xwy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "p", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()

    def open_(options: Any, own: Kernels | None = None) -> Any:
        return ort.InferenceSession(model, options, providers=[CPU])

    assert "a weight is not a constant" in str(with_kernels(own, 1, open_, required=False)[1])
    with pytest.raises(Exception, match="a weight is not a constant"):
        with_kernels(own, 1, open_, required=True)


def test_only_the_library_of_these_very_sources_is_used(built: Path, nowhere: None) -> None:
    library = next(built.glob("*.so"))
    shutil.copy(library, module.SOURCES)
    assert isinstance(kernels(), Kernels) or "processor" in str(kernels())
    (module.SOURCES / "dense.h").write_text((module.SOURCES / "dense.h").read_text() + "\n")
    kernels.cache_clear()
    assert "not compiled" in str(kernels())
    assert remove_kernels() == [module.SOURCES / library.name]


def test_a_compiler_that_fails_is_an_error_in_its_words(nowhere: None) -> None:
    with pytest.raises(MachineError, match=r"kernels: (false failed|there are none)"):
        compile_kernels("false")
    with pytest.raises(MachineError, match=r"kernels: (no-such|there are none)"):
        compile_kernels("no-such")


def test_files_that_were_only_read_leave_memory(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"7" * 4096 * 16)
    held = np.memmap(path, np.uint8, "r")
    assert held.sum() == 55 * 4096 * 16
    let_go([path])
    assert held.sum() == 55 * 4096 * 16
