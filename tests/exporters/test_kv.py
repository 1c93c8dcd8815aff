"""A KV cache in int8: its scales hold at any position, it passes its gate, and it is refused where it is not proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.exporters import calibrate, kv
from octavo.exporters.export import export_bundle
from octavo.exporters.inspect import report
from octavo.exporters.parity import TOLERANCES, tolerance_of
from octavo.profiles.errors import BundleError, ConfigError, GateError
from octavo.profiles.manifest import Precision
from tests.exporters.conftest import Maker, value_model
from tests.exporters.test_lora import make_adapter

FAMILIES = ["llama", "qwen3-heads-of-12", "gemma2", "phi3-partly-turned", "mistral-window"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_passes_the_gate(name: str, make_model: Maker, tmp_path: Path) -> None:
    """Windows, capped scores, padded heads, heads of which a part is turned, norms of heads."""
    manifest = export_bundle([make_model(name, seed=1)], tmp_path / "bundle", kv="int8")
    [graph] = manifest.graphs
    [parity] = [weights.parity for weights in manifest.experts[0].weights]
    assert parity is not None
    assert parity.passed
    assert 0 < parity.mean_kl < 1e-3
    assert parity.greedy_equal is None
    assert graph.kv is not None
    assert (graph.kv.dtype, graph.kv.scales) == ("int8", "channel")
    assert graph.providers == ["CPUExecutionProvider"]


def test_experts_share_the_graph_and_have_scales_of_their_own(make_model: Maker, tmp_path: Path) -> None:
    folders, value = [make_model(seed=seed) for seed in range(2)], value_model(make_model)
    own = report_of(folders, tmp_path / "model", value=value)
    small = report_of(folders, tmp_path / "int8", value=value, kv="int8")
    for before, after in zip(own["graphs"], small["graphs"], strict=True):
        assert after["kv_bytes_per_token"] * 4 == before["kv_bytes_per_token"]
        assert (before["kv_dtype"], after["kv_dtype"]) == ("float32", "int8")
    graphs = {path.read_bytes() for path in (tmp_path / "int8").glob("llama-[01]/model.onnx")}
    assert len(graphs) == 1
    scales = [scales_of(tmp_path / "int8" / f"llama-{seed}") for seed in range(2)]
    assert all((each > 0).all() for each in scales)
    assert not np.array_equal(*scales)
    assert not list((tmp_path / "int8").rglob("*unscaled*"))


def report_of(folders: list[Path], out: Path, **options: Any) -> dict[str, Any]:
    export_bundle(folders, out, verify=False, **options)
    return report(out)


def scales_of(folder: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Those of the first layer's keys."""
    import onnx

    model = onnx.load(folder / "model.onnx")
    [found] = [each for each in model.graph.initializer if each.name == kv.scale_name(0, "key")]
    return np.asarray(onnx.numpy_helper.to_array(found))


def test_no_position_turns_a_key_beyond_its_scale() -> None:
    """Keys of two heads, six channels turned in three pairs and two not, at every angle."""
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(20, 2, 8)).astype(np.float32)
    widest = kv.widest_keys(keys, 3)
    for angles in rng.uniform(0, 2 * np.pi, size=(200, 3)):
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = keys[..., :3], keys[..., 3:6]
        turned = np.concatenate([first * cos - second * sin, second * cos + first * sin, keys[..., 6:]], axis=-1)
        assert (np.abs(turned) <= widest * (1 + 1e-6)).all()
        assert (np.abs(np.rint(turned / kv.scales_of(widest))) <= kv.LARGEST).all()
    assert (kv.scales_of(np.zeros((1, 8))) == 1).all()


def test_scales_that_are_wrong_fail_the_gate(
    make_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers cut off at a fiftieth of what they are."""
    right = calibrate.scales_of
    monkeypatch.setattr(calibrate, "scales_of", lambda widest: right(widest) / 50)
    with pytest.raises(GateError, match=r"parity failed at fp32, KV in int8: .*at most 0.25 of"):
        export_bundle([make_model()], tmp_path / "bundle", kv="int8")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_the_gate_of_weights_is_no_stricter_for_the_cache(precision: Precision) -> None:
    """And where the weights may err by more than the cache, the cache loosens nothing."""
    own, both = TOLERANCES[precision], tolerance_of(precision, "int8")
    assert (both.logit >= own.logit, both.kl >= own.kl, both.agreement <= own.agreement) == (True, True, True)
    assert tolerance_of(precision, "model") is own
    if precision in ("int8", "int4"):
        assert (both.logit, both.kl, both.agreement) == (own.logit, own.kl, own.agreement)


def test_adapters_of_one_base_share_scales_that_suit_all(make_model: Maker, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = make_model("llama")
    adapters = [make_adapter(base, tmp_path / f"tuned-{seed}", seed) for seed in range(2)]
    manifest = export_bundle(adapters, tmp_path / "bundle", kv="int8", precision="int8")
    assert [weights.parity.passed for e in manifest.experts for weights in e.weights if weights.parity] == [True, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"targets": ["cuda"], "precision": "fp16"},
            "kv int8: proven of native graphs on the cpu alone, not of target cuda",
        ),
        ({"targets": ["tensorrt"], "precision": "fp16"}, "not of target tensorrt"),
        ({"targets": ["cpu", "cuda"], "precision": "fp16"}, "not of target cpu, cuda"),
        ({"route": "optimum"}, "not of route optimum"),
    ],
)
def test_it_is_refused_where_it_is_not_proven(
    options: dict[str, Any], said: str, make_model: Maker, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        export_bundle([make_model()], tmp_path / "bundle", kv="int8", **options)


def test_a_family_that_only_optimum_knows_is_refused(tmp_path: Path) -> None:
    import transformers

    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50, n_positions=32)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(BundleError, match=r"gpt2.*Optimum (could trace it, but not with its KV cache in int8|cannot)"):
        export_bundle([tmp_path / "gpt2"], tmp_path / "bundle", kv="int8", verify=False)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no text of two tokens or more"),
        ("one short line", "tokens are too few to measure the scales of an int8 cache"),
    ],
)
def test_a_text_that_says_nothing_of_the_scales_is_refused(
    text: str, said: str, make_model: Maker, tmp_path: Path
) -> None:
    from tests.runtime.conftest import save_tokenizer

    folder, path = make_model(), tmp_path / "text.txt"
    save_tokenizer(folder)
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        export_bundle([folder], tmp_path / "bundle", kv="int8", parity_text=path)
    assert not (tmp_path / "bundle").exists()
