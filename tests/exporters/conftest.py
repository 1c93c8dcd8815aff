"""Small random models of every family, saved as their users would save them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [2.0] * 6}

# A name for each configuration: the transformers class stem, and what differs from SIZES.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-multi-query-biased-tied": (
        "Llama",
        {
            "head_dim": 24,
            "num_key_value_heads": 1,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "rms_norm_eps": 1e-4,
            "hidden_act": "gelu",
        },
    ),
    "llama-rope-llama3": ("Llama", {"rope_scaling": LLAMA3, "rope_theta": 5e5}),
    "llama-rope-linear": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.5}}),
    "llama-rope-yarn": ("Llama", {"rope_scaling": YARN}),
    "llama-rope-dynamic": ("Llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    "llama-heads-of-4": ("Llama", {"head_dim": 4}),
    "llama-heads-of-10": ("Llama", {"head_dim": 10, "num_attention_heads": 5, "num_key_value_heads": 5}),
    "mistral-window": ("Mistral", {"sliding_window": 7}),
    "mistral-no-window": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2-windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16, "rope_scaling": YARN}),
    "qwen3-heads-of-12": ("Qwen3", {"head_dim": 12, "attention_bias": True}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 20}),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 16,
            "sliding_window": 8,
            "query_pre_attn_scalar": 20,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "phi3-window": ("Phi3", {"sliding_window": 11}),
    "phi3-partly-turned": ("Phi3", {"partial_rotary_factor": 0.5}),
    "phi3-longrope": ("Phi3", {"original_max_position_embeddings": 64, "rope_scaling": LONGROPE}),
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen3-moe": (
        "Qwen3Moe",
        {"head_dim": 16, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 40},
    ),
}

Maker = Callable[..., Path]


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """make_model(name, seed=0, head="ForCausalLM", dtype="float32", **changes): a checkpoint folder."""

    def make(
        name: str = "llama", seed: int = 0, head: str = "ForCausalLM", dtype: str = "float32", **changes: Any
    ) -> Path:
        import torch
        import transformers

        torch.set_num_threads(1)
        stem, differences = MODELS[name]
        config_class = getattr(transformers, f"{stem}TextConfig" if stem == "Gemma3" else f"{stem}Config")
        config = config_class(**SIZES | differences | ({"num_labels": 1} if head != "ForCausalLM" else {}) | changes)
        torch.manual_seed(seed)
        model = getattr(transformers, f"{stem}{head}")(config)
        for parameter in model.parameters():
            parameter.data.normal_(0.0 if parameter.ndim > 1 else 0.5, 0.1 if parameter.ndim > 1 else 0.3)
        folder = tmp_path_factory.mktemp("checkpoints") / f"{name}-{seed}"
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        return folder

    return make


def value_model(make: Maker, **changes: Any) -> Path:
    """A value model: a Llama trunk with one logit."""
    return make("llama", seed=99, head="ForSequenceClassification", **changes)
