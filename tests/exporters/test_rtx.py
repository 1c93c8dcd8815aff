"""TensorRT's own parser and builder take what the exporter draws: every family, on a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest

from octavo.exporters import rtx
from octavo.exporters.export import export_bundle
from octavo.exporters.rtx import Allowance, check_build, shapes, try_build
from octavo.profiles.errors import ConfigError, GateError, MachineError
from octavo.profiles.manifest import Manifest, Precision
from tests.exporters.conftest import Maker, value_model
from tests.exporters.test_lora import make_adapter

installed = pytest.mark.skipif(
    not (find_spec(rtx.LIBRARIES) and find_spec(rtx.BINDINGS)), reason="TensorRT-RTX is not installed: octavo[rtx]"
)
# One of each kind of layer; the others differ from these in numbers only.
KINDS = {"llama-multi-query-biased-tied": "bf16", "qwen2-windows": "fp16", "gemma2": "bf16", "mixtral": "fp16"}


def exported(folders: list[Path], out: Path, precision: Precision = "fp16", **options: Any) -> Manifest:
    return export_bundle(folders, out, targets=["tensorrt"], precision=precision, verify=False, **options)


@installed
@pytest.mark.parametrize("name", KINDS)
def test_a_graph_of_every_kind_is_built(name: str, make_model: Maker, tmp_path: Path) -> None:
    precision: Any = KINDS[name]
    [graph] = exported([make_model(name)], tmp_path / "b", precision, check_build=True).graphs
    assert graph.build is not None
    assert graph.build.passed
    assert graph.build.library.startswith("TensorRT-RTX 1.")
    assert graph.build.engine_bytes > 100_000


@installed
def test_adapters_value_models_and_every_output_are_built(make_model: Maker, tmp_path: Path) -> None:
    base = make_model()
    adapters = [make_adapter(base, tmp_path / f"tuned-{seed}", seed) for seed in range(2)]
    options: dict[str, Any] = {"top_k": 5, "hidden": True, "value": value_model(make_model)}
    graphs = exported(adapters, tmp_path / "b", "bf16", **options, check_build=True).graphs
    assert [(graph.role, bool(graph.adapters)) for graph in graphs] == [("decoder", True), ("value", False)]
    assert all(graph.build and graph.build.passed for graph in graphs)


@installed
def test_weights_that_experts_share_are_found(make_model: Maker, tmp_path: Path) -> None:
    folder = make_model(vocab_size=1024)
    manifest = exported([folder, folder], tmp_path / "b", check_build=True)
    assert any(path.startswith("shared/") for path in manifest.experts[0].weights[0].locations.values())
    assert manifest.graphs[0].build


@installed
def test_a_refused_graph_is_named_with_its_node(make_model: Maker, tmp_path: Path) -> None:
    manifest = exported([make_model()], tmp_path / "b")
    path = tmp_path / "b" / manifest.experts[0].weights[0].model
    proto = onnx.load(path, load_external_data=False)
    attention = next(node for node in proto.graph.node if node.op_type == "Attention")
    attention.attribute.append(onnx.helper.make_attribute("softcap", 30.0))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(GateError, match=r"does not build it: node Attention_1 \(Attention\): .*softcap"):
        check_build(tmp_path / "b", manifest.graphs[0], manifest.experts[0].weights[0])


@installed
def test_a_graph_that_is_not_built_leaves_no_bundle(
    make_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here for its profiles: no row would be the usual number of rows."""
    monkeypatch.setattr("octavo.exporters.profiles.ROWS", 0)
    with pytest.raises(GateError, match=r"profile 0: its sizes are not in order"):
        exported([make_model()], tmp_path / "b", check_build=True)
    assert not list(tmp_path.iterdir())


@installed
@pytest.mark.parametrize(
    ("allowance", "said"),
    [(Allowance(memory=100 << 20), r"needs more than 0\.1 GB"), (Allowance(seconds=0.05), "not built it in 0 s")],
)
def test_too_little_time_or_memory_is_the_machines_fault(
    allowance: Allowance, said: str, make_model: Maker, tmp_path: Path
) -> None:
    manifest = exported([make_model()], tmp_path / "b")
    with pytest.raises(MachineError, match=said):
        try_build(tmp_path / "b", manifest.graphs[0], manifest.experts[0].weights[0], allowance)


def test_what_cannot_be_tried_is_said_before_anything_is_exported(
    make_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="of the targets cpu none is tensorrt"):
        export_bundle([make_model()], tmp_path / "b", check_build=True)
    monkeypatch.setattr(rtx, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"not installed; install octavo\[rtx\]"):
        exported([make_model()], tmp_path / "b", check_build=True)
    assert not list(tmp_path.iterdir())


def test_the_profile_names_every_input_and_its_sizes_are_in_order(make_model: Maker, tmp_path: Path) -> None:
    base = make_model()
    adapters = [make_adapter(base, tmp_path / f"tuned-{seed}", seed) for seed in range(2)]
    for graph in exported(adapters, tmp_path / "b", value=value_model(make_model)).graphs:
        (profile,) = shapes(graph.trt_profiles)
        assert set(profile) == {entry.name for entry in graph.inputs}
        for entry in graph.inputs:
            least, usual, most = profile[entry.name]
            assert len(least) == len(entry.shape)
            assert all(1 <= low <= middle <= high for low, middle, high in zip(least, usual, most, strict=True))
            for size, low, high in zip(entry.shape, least, most, strict=True):
                assert isinstance(size, str) or low == high == size
        assert graph.kv
        assert [sizes[1] for sizes in profile["input_ids"]] == [1, 1, graph.kv.max_length]


@installed
def test_the_worker_needs_nothing_of_ours_that_is_heavy() -> None:
    code = "import sys, octavo.exporters.rtx_worker as w; w.load(); print(*sys.modules)"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert not {"torch", "onnx", "onnxruntime", "pydantic"} & set(ran.stdout.split())
