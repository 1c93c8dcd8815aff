"""Bytes and FLOPs follow from the shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.profiles import ConfigError, Model, list_profiles, load_hardware, load_model, load_scenario

MODELS = [load_model(row["name"]) for row in list_profiles("models")]

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}


def test_a_token_of_llama_3_1_8b_keeps_128_kib() -> None:
    assert load_model("llama-3.1-8b").kv_bytes_per_token("bf16") == 128 * 1024


def test_latent_attention_keeps_576_numbers_a_layer() -> None:
    assert load_model("deepseek-v3").kv_bytes_per_token("bf16") == 61 * 576 * 2


@given(st.sampled_from(MODELS), st.integers(1, 100_000))
def test_a_window_keeps_less_and_never_more(model: Model, tokens: int) -> None:
    whole = tokens * model.kv_bytes_per_token("bf16")
    assert model.kv_bytes(tokens, "bf16") <= whole
    assert (model.window is not None and tokens > model.window.tokens) == (model.kv_bytes(tokens, "bf16") < whole)


@given(st.sampled_from(MODELS), st.integers(1, 10_000), st.integers(1, 10_000))
def test_more_tokens_read_no_fewer_weights_and_never_more_than_there_are(model: Model, few: int, more: int) -> None:
    few, more = sorted((few, more))
    read = [model.weight_bytes_read("bf16", tokens) for tokens in (few, more)]
    assert 0 < read[0] <= read[1] <= model.weight_bytes("bf16")
    assert model.attention_flops(few) <= model.attention_flops(more)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_active_parameters_are_some_or_all(model: Model) -> None:
    assert (model.active_parameters < model.parameters) == (model.moe is not None)
    assert model.flops_per_token <= 2 * model.active_parameters
    assert model.lora_parameters(16) < 0.1 * model.parameters


def test_one_token_reads_the_active_weights() -> None:
    model = load_model("mixtral-8x7b")
    assert model.weight_bytes_read("bf16", 1) == pytest.approx(model.flops_per_token)


def test_four_bit_weights_are_multiplied_in_sixteen_bit_where_there_is_no_unit_for_them() -> None:
    assert load_hardware("h100-sxm").compute_precision("int4") == "bf16"
    assert load_hardware("b200").compute_precision("fp4") == "fp4"
    assert load_hardware("apple-m4-pro").compute_precision("bf16") == "fp16"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "expert-1"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return folder


@pytest.mark.parametrize("suffix", ["", "config.json"])
def test_a_model_may_be_a_checkpoint(checkpoint: Path, suffix: str) -> None:
    model = load_model(str(checkpoint / suffix))
    per_layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160
    assert model.parameters == 4 * per_layer + 96 * 64
    assert (model.layers, model.kv_heads, model.head_dim, model.tied_embeddings) == (4, 2, 16, True)
    assert model.unsourced() == ()


def test_a_scenario_may_name_a_checkpoint_beside_it(checkpoint: Path) -> None:
    path = checkpoint.parent / "mine.yaml"
    path.write_text(
        """
        ensemble: {experts: {model: ./expert-1, count: 3}}
        fleet: {tiers: {here: {}}, placement: [{of: experts, tier: here, hardware: laptop-cpu, mode: co-located}]}
        workload: chat
        """
    )
    model = load_scenario(path).model_of("expert-2")
    assert model
    assert model.hidden == 64


@pytest.mark.parametrize("change", [{"hidden_size": None}, {"num_hidden_layers": "many"}, {"vocab_size": -1}])
def test_a_config_that_is_no_decoder_is_refused(checkpoint: Path, change: dict[str, Any]) -> None:
    (checkpoint / "config.json").write_text(json.dumps(LLAMA | change))
    with pytest.raises(ConfigError, match="expert-1"):
        load_model(str(checkpoint))


def test_a_sparse_config_with_windows_is_understood(checkpoint: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    sparse = {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 128, "layer_types": kinds}
    (checkpoint / "config.json").write_text(json.dumps(LLAMA | sparse))
    model = load_model(str(checkpoint))
    assert model.moe
    assert (model.moe.experts, model.moe.active) == (8, 2)
    assert model.window
    assert (model.window.tokens, model.window.layers) == (128, 2)


def config_of(name: str, **more: Any) -> dict[str, Any]:
    """What the published config.json says, as far as the shape goes."""
    known: dict[str, dict[str, Any]] = {
        "gpt-oss-20b": {
            "model_type": "gpt_oss",
            "num_hidden_layers": 24,
            "hidden_size": 2880,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "intermediate_size": 2880,
            "num_local_experts": 32,
            "experts_per_token": 4,
            "sliding_window": 128,
            "layer_types": ["sliding_attention", "full_attention"] * 12,
            "quantization_config": {"quant_method": "mxfp4"},
            "vocab_size": 201088,
            "max_position_embeddings": 131072,
        },
        "gemma-3-27b": {
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                "num_hidden_layers": 62,
                "hidden_size": 5376,
                "num_attention_heads": 32,
                "num_key_value_heads": 16,
                "head_dim": 128,
                "intermediate_size": 21504,
                "sliding_window": 1024,
            },
            "vision_config": {"hidden_size": 1152},
        },
        "deepseek-v2-lite": {
            "model_type": "deepseek_v2",
            "num_hidden_layers": 27,
            "hidden_size": 2048,
            "num_attention_heads": 16,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "kv_lora_rank": 512,
            "q_lora_rank": None,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "vocab_size": 102400,
            "max_position_embeddings": 163840,
        },
        "llama-4-maverick": {
            "model_type": "llama4_text",
            "num_hidden_layers": 48,
            "hidden_size": 5120,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "interleave_moe_layer_step": 2,
            "num_local_experts": 128,
            "num_experts_per_tok": 1,
            "attention_chunk_size": 8192,
            "vocab_size": 202048,
            "max_position_embeddings": 1048576,
        },
        "qwen1.5-moe": {
            "model_type": "qwen2_moe",
            "num_hidden_layers": 24,
            "hidden_size": 2048,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "intermediate_size": 5632,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "vocab_size": 151936,
            "max_position_embeddings": 8192,
        },
        "falcon-7b": {
            "model_type": "falcon",
            "num_hidden_layers": 32,
            "hidden_size": 4544,
            "num_attention_heads": 71,
            "multi_query": True,
            "vocab_size": 65024,
            "max_position_embeddings": 2048,
        },
    }
    return known[name] | more


@pytest.mark.parametrize(
    ("name", "billions", "kv_elements"),
    [
        ("gpt-oss-20b", 20.9, 24 * 2 * 8 * 64),
        ("gemma-3-27b", 27.0, 62 * 2 * 16 * 128),
        ("deepseek-v2-lite", 15.7, 27 * 576),
        ("llama-4-maverick", 400, 48 * 2 * 8 * 128),
        ("qwen1.5-moe", 14.3, 24 * 2 * 16 * 128),
        ("falcon-7b", 6.92, 32 * 2 * 64),
    ],
)
def test_a_published_config_has_the_parameters_that_its_makers_say(
    checkpoint: Path, name: str, billions: float, kv_elements: int
) -> None:
    (checkpoint / "config.json").write_text(json.dumps(config_of(name)))
    model = load_model(str(checkpoint))
    assert model.parameters / 1e9 == pytest.approx(billions, rel=0.01)
    assert model.kv_bytes_per_token("bf16") == 2 * kv_elements


@pytest.mark.parametrize(("name", "gibibytes"), [("gpt-oss-20b", 12.8), ("gpt-oss-120b", 60.8)])
def test_experts_that_are_published_in_four_bits_stay_so(name: str, gibibytes: float) -> None:
    """The model card gives the size of the checkpoints."""
    assert load_model(name).weight_bytes("bf16") / 2**30 == pytest.approx(gibibytes, rel=0.01)


@pytest.mark.parametrize(
    "change",
    [{"layer_types": ["linear_attention", "full_attention"]}, {"mamba_d_state": 16}, {"is_encoder_decoder": True}],
)
def test_layers_without_keys_and_values_are_refused(checkpoint: Path, change: dict[str, Any]) -> None:
    (checkpoint / "config.json").write_text(json.dumps(LLAMA | change))
    with pytest.raises(ConfigError, match="only decoders of attention"):
        load_model(str(checkpoint))
