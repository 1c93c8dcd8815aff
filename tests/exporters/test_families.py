"""Every family's graph computes what transformers computes, by every way of feeding it, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from octavo.exporters.export import export_bundle
from octavo.exporters.families import describe
from octavo.profiles.errors import BundleError, ConfigError
from octavo.profiles.manifest import Precision
from tests.exporters.conftest import MODELS, Maker


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_model_equals_its_original(name: str, make_model: Maker, tmp_path: Path) -> None:
    """Logits and greedy tokens, over a ragged prefill, chunks and decoding; the gate holds them to the tolerance."""
    manifest = export_bundle([make_model(name)], tmp_path / "bundle")
    parity = manifest.experts[0].weights[0].parity
    assert parity is not None
    assert parity.max_abs_error < 2e-5
    assert parity.greedy_equal
    assert parity.top1_agreement == 1.0


BLOCKS = {"hidden_size": 64, "intermediate_size": 64}  # sizes that are whole blocks of 32


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize(("name", "changes"), [("mixtral", {}), ("qwen3-moe", {"moe_intermediate_size": 64})])
def test_sparse_layers_are_stored_in_few_bits(
    name: str, changes: dict[str, int], precision: Precision, make_model: Maker, tmp_path: Path
) -> None:
    """They pass the gate of linear layers, and take the fewer bytes that their bits promise."""
    folder = make_model(name, **BLOCKS, **changes)
    sizes = {}
    precisions: tuple[Precision, ...] = ("fp32", precision)
    for chosen in precisions:
        manifest = export_bundle([folder], tmp_path / chosen, precision=chosen)
        parity = manifest.experts[0].weights[0].parity
        assert parity is not None
        assert parity.passed
        sizes[chosen] = next(file.size for file in manifest.files if file.path.endswith("weights.bin"))
    operators = {
        node.op_type for node in onnx.load(model_of(tmp_path / precision), load_external_data=False).graph.node
    }
    assert "QMoE" in operators
    assert "MoE" not in operators
    assert sizes[precision] < sizes["fp32"] * 0.5  # the embedding, the cosines and the sines stay in fp32


def model_of(bundle: Path) -> Path:
    return next(bundle.glob("*/model.onnx"))


def test_sparse_layers_of_no_whole_blocks_are_refused_in_few_bits(make_model: Maker, tmp_path: Path) -> None:
    folder = make_model("qwen3-moe", hidden_size=64)
    with pytest.raises(BundleError, match=r"need sizes that 32 divides, not 64 and 40; fp32, fp16 and bf16 take any"):
        export_bundle([folder], tmp_path / "bundle", verify=False, precision="int8")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba'.*supported are llama, mistral"),
        ({"attention_multiplier": 0.5}, "attention_multiplier=0.5: not understood"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
        ({"hidden_act": "quick_gelu"}, "hidden_act='quick_gelu'.*supported are silu"),
        ({"rope_scaling": {"rope_type": "su", "factor": 2.0}}, "type 'su' is not supported; supported are default"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 3}}, "beta not understood"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"num_key_value_heads": 3}, "num_attention_heads=4 is no multiple of num_key_value_heads=3"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"head_dim": 0}, "head_dim must be a positive integer, got 0"),
        ({"rope_theta": "10000"}, "rope_theta must be a positive number, got '10000'"),
        ({"attention_bias": "no"}, "attention_bias must be true or false, got 'no'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "rope_scaling: factor must be a positive number"),
        ({"num_hidden_layers": "three"}, "num_hidden_layers must be a positive integer"),
        ({"num_hidden_layers": 4}, "tensors are missing: model.layers.3"),
        ({"num_hidden_layers": 2}, "does not know what to do with model.layers.2"),
        ({"intermediate_size": 64}, "the config says"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config="),
    ],
)
def test_what_would_make_a_wrong_graph_is_refused(
    changes: dict[str, Any], said: str, make_model: Maker, tmp_path: Path
) -> None:
    folder = make_model()
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(BundleError, match=said):
        export_bundle([folder], tmp_path / "bundle", verify=False, route="native")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama", {"is_llama_config": True, "rope_interleaved": False, "max_sequence_length": 2048}),
        ("phi3-longrope", {"interpolate_factor": 1, "full_attn_mod": 1, "lm_head_bias": False}),
        ("qwen2", {"use_mrope": False, "is_decoder": True}),
    ],
)
def test_keys_that_well_known_checkpoints_carry_are_understood(
    name: str, said: dict[str, Any], make_model: Maker
) -> None:
    config = json.loads((make_model(name) / "config.json").read_text())
    assert describe(config | said) == describe(config)


def test_configs_of_transformers_5_are_read(make_model: Maker, tmp_path: Path) -> None:
    folder = make_model("llama-rope-llama3")
    config = json.loads((folder / "config.json").read_text())
    scaling = config.pop("rope_scaling") | {"rope_theta": config.pop("rope_theta")}
    old = export_bundle([folder], tmp_path / "old", verify=False)
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": scaling}))
    new = export_bundle([folder], tmp_path / "new", verify=False)
    assert old.graphs[0].sha256 == new.graphs[0].sha256


def test_sparse_layers_of_two_lowerings_share_one_weights_file(make_model: Maker, tmp_path: Path) -> None:
    """What one graph has turned and the other has not is not taken for one weight, even where the bytes are as many."""
    folder = make_model("mixtral")
    manifest = export_bundle([folder], tmp_path / "bundle", precision="fp16", targets=["cuda", "tensorrt"])
    for weights in manifest.experts[0].weights:
        assert weights.parity is not None
        assert weights.parity.max_abs_error < 0.02


def damaged(folder: Path) -> Path:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = np.nan
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def test_a_checkpoint_of_no_numbers_is_refused(make_model: Maker, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the original itself gives NaN or infinity"):
        export_bundle([damaged(make_model())], tmp_path / "bundle")


def test_numbers_that_fp16_cannot_hold_are_said_to_be_so(make_model: Maker, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = make_model()
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.down_proj.weight"] *= 1e7
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BundleError, match=r"down_proj\.weight has values beyond fp16; choose bf16"):
        export_bundle([folder], tmp_path / "bundle", precision="fp16", verify=False)


def test_limits_that_make_no_sense_are_refused(make_model: Maker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_length: 1"):
        export_bundle([make_model()], tmp_path / "bundle", max_length=1)
    with pytest.raises(ConfigError, match="top_k: 98, of a vocabulary of 97 tokens"):
        export_bundle([make_model()], tmp_path / "bundle", top_k=98)
