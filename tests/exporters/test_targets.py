"""Every family x target x precision: drawn, checked, and equal to its original within the precision's tolerance."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from octavo.exporters.export import export_bundle
from octavo.exporters.policy import check_graph
from octavo.profiles.errors import BundleError, ConfigError
from octavo.profiles.manifest import Manifest, Parity, Precision
from tests.exporters.conftest import MODELS, Maker, value_model


def parity_of(manifest: Manifest) -> Parity:
    parity = manifest.experts[0].weights[0].parity
    assert parity is not None
    return parity


@pytest.mark.parametrize("name", MODELS)
def test_the_tensorrt_graph_equals_its_original(
    name: str, make_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured on its fp32 twin, without the rounding to bfloat16: the graph alone must agree almost exactly."""
    monkeypatch.setattr("octavo.exporters.twin._rounded", lambda weight: weight)
    manifest = export_bundle([make_model(name)], tmp_path / "bundle", targets=["tensorrt"], precision="bf16")
    assert parity_of(manifest).max_abs_error < 2e-5
    assert {"strict shape inference", "operators of tensorrt"} <= set(manifest.graphs[0].checked)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "llama-multi-query-biased-tied", "qwen3", "phi3-partly-turned"])
def test_smaller_precisions_pass_their_gate(name: str, precision: Precision, make_model: Maker, tmp_path: Path) -> None:
    manifest = export_bundle([make_model(name)], tmp_path / "bundle", precision=precision)
    assert parity_of(manifest).passed
    assert parity_of(manifest).max_abs_error > 0


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_one_bundle_serves_cuda_and_tensorrt_from_the_same_weights(
    precision: Precision, make_model: Maker, tmp_path: Path
) -> None:
    manifest = export_bundle([make_model()], tmp_path / "b", targets=["cuda", "tensorrt"], precision=precision)
    assert [graph.lowering for graph in manifest.graphs] == ["ort", "tensorrt"]
    assert manifest.experts[0].weights[0].locations == manifest.experts[0].weights[1].locations
    assert all(weights.parity and weights.parity.passed for weights in manifest.experts[0].weights)


@pytest.mark.parametrize(
    ("precision", "targets"), [("fp32", ["cuda"]), ("fp32", ["cpu", "cuda"]), ("int4", ["cpu", "cuda"])]
)
def test_attention_on_cuda_has_no_kernel_for_fp32(
    precision: Precision, targets: list[str], make_model: Maker, tmp_path: Path
) -> None:
    """Such a graph would leave it to the CPU, and be refused there."""
    with pytest.raises(ConfigError, match=f"precision {precision}: ONNX Runtime's attention on CUDA has no kernel"):
        export_bundle([make_model()], tmp_path / "b", targets=targets, precision=precision)


def test_a_bundle_for_tensorrt_says_how_to_build_its_engines(make_model: Maker, tmp_path: Path) -> None:
    graph = export_bundle([make_model()], tmp_path / "b", targets=["tensorrt"], precision="fp16", verify=False).graphs[
        0
    ]
    profiles = {bound: graph.trt_profiles[f"trt_profile_{bound}_shapes"] for bound in ("min", "opt", "max")}
    assert profiles["max"].startswith("input_ids:16x96,held:16,logit_positions:16x1,")
    assert profiles["opt"].startswith("input_ids:16x1,held:16,logit_positions:16x1,")
    assert {each.count("input_ids:") for each in profiles.values()} == {1}, "ONNX Runtime runs the first profile only"
    assert "past_key_values.0.key:16x2x96x16" in profiles["max"]
    assert graph.trt_options["trt_engine_cache_enable"] == "1"
    assert graph.trt_refit_options["trt_weight_stripped_engine_enable"] == "1"


def test_the_static_cache_is_as_long_as_asked(make_model: Maker, tmp_path: Path) -> None:
    folder = make_model(max_position_embeddings=8192)
    for asked, length in ((None, 2048), (64, 64), (4096, 4096)):
        out = tmp_path / str(asked)
        manifest = export_bundle([folder], out, targets=["tensorrt"], precision="fp16", max_length=asked, verify=False)
        assert manifest.graphs[0].kv
        assert manifest.graphs[0].kv.max_length == length


def test_top_k_and_logsumexp_are_those_of_the_logits(make_model: Maker, tmp_path: Path) -> None:
    import numpy as np

    from octavo.exporters.player import Player

    folder, ids = make_model(), np.arange(5, 12)
    full = export_bundle([folder], tmp_path / "full", verify=False)
    small = export_bundle([folder], tmp_path / "small", top_k=9, hidden=True)
    parity = small.experts[0].weights[0].parity
    assert parity is not None
    assert parity.max_abs_error < 2e-5
    assert parity.greedy_equal
    players = [
        Player(tmp_path / name, bundle.experts[0].weights[0], bundle.graphs[0], 1, 16)
        for name, bundle in (("full", full), ("small", small))
    ]
    logits, values = (player.prefill(ids[None], np.array([7]))[0] for player in players)
    others = players[1].others
    assert np.array_equal(np.sort(logits)[:, ::-1][:, :9], values)
    assert np.array_equal(np.take_along_axis(logits, others["top_ids"][0], -1), values)
    assert np.allclose(others["logsumexp"][0], np.log(np.exp(logits.astype(np.float64)).sum(-1)), atol=1e-5)
    assert others["hidden"].shape == (1, 7, 48)


@pytest.mark.parametrize(
    ("targets", "precision"),
    [(["tensorrt"], "fp32"), (["tensorrt"], "int4"), (["cpu"], "bf16"), (["npu"], "fp32"), ([], "fp32")],
)
def test_targets_that_cannot_run_a_precision_are_refused(
    targets: list[str], precision: Precision, make_model: Maker, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"precision|targets"):
        export_bundle([make_model()], tmp_path / "bundle", targets=targets, precision=precision)


def test_operators_off_the_list_are_refused(make_model: Maker, tmp_path: Path) -> None:
    export_bundle([make_model()], tmp_path / "bundle", verify=False)
    [model] = (tmp_path / "bundle").glob("*/model.onnx")
    with pytest.raises(BundleError, match="no operator for TensorRT"):
        check_graph(model.read_bytes(), "tensorrt")
    proto = onnx.load(model, load_external_data=False)
    proto.graph.node[0].domain = "evil.ops"
    with pytest.raises(BundleError, match=r"evil\.ops.* is not on the list of allowed operators"):
        check_graph(proto.SerializeToString(), "ort")


def test_a_value_model_is_exported_with_its_calibration(make_model: Maker, tmp_path: Path) -> None:
    value = value_model(make_model)
    (value / "calibration.json").write_text('{"scale": 2.0, "shift": -0.5, "auc": 0.93, "method": "platt"}')
    entry = export_bundle([make_model()], tmp_path / "bundle", value=value).value
    assert entry is not None
    assert (entry.scale, entry.shift, entry.calibration["auc"]) == (2.0, -0.5, 0.93)
    assert entry.weights[0].parity
    assert entry.weights[0].parity.passed
