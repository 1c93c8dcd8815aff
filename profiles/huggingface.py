"""A model's shape out of a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError

_SHAPE = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head"),
    "vocab": ("vocab_size",),
    "max_context": ("max_position_embeddings", "n_positions", "max_sequence_length"),
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_UNGATED = ("gpt2", "gpt_neox", "gpt_bigcode", "opt", "phi", "bloom", "falcon", "starcoder2", "nemotron", "arcee")
_TIED = ("gemma", "gpt2", "gpt_bigcode", "opt", "bloom", "falcon", "starcoder2", "cohere")
"""Families that tie embeddings where config.json says nothing: it leaves out what is its class's default."""
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
    },
    "gemma2": {"sliding_window": 4096, "sliding_window_pattern": 2},
}
"""What transformers' classes (4.57) take where config.json is silent, as it is for the published Gemma 3."""
_WINDOWED = ("sliding_attention", "chunked_attention")
_ATTENTION = (*_WINDOWED, "full_attention", "global_attention", "attention")
_RECURRENT = ("mamba_d_state", "mamba_d_ssm", "ssm_cfg", "ssm_state_size", "linear_num_value_heads", "attn_type_list")
"""Keys that only models with recurrent layers have."""


def config_in(path: Path | Traversable) -> Path | None:
    """The config.json of a checkpoint folder, or the file itself when that is what it is."""
    config = Path(str(path / "config.json" if path.is_dir() else path))
    return config if config.name == "config.json" and config.is_file() else None


def model_data(config: Mapping[str, Any], origin: str, written: date) -> dict[str, Any]:
    """Plain data of a Model. Raises ConfigError naming the keys that are missing, or what a Model cannot say."""
    config = _with_defaults({**config, **(config.get("text_config") or {})})
    shape = {field: _first(config, names) for field, names in _SHAPE.items()}
    if missing := [" or ".join(_SHAPE[field]) for field, value in shape.items() if value is None]:
        raise ConfigError(f"{origin}: not a decoder's config.json that is understood; missing {', '.join(missing)}")
    _refuse_others(config, origin)
    heads, hidden = shape["heads"], shape["hidden"]
    return {
        "name": origin,
        "family": str(config.get("model_type", "")),
        **shape,
        "kv_heads": _kv_heads(config, heads),
        "head_dim": config.get("head_dim") or hidden // heads,
        "intermediate": _first(
            config, ("intermediate_size_mlp", "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
        )
        or 4 * hidden,
        "gated": config.get("model_type") not in _UNGATED,
        "tied_embeddings": bool(config.get("tie_word_embeddings", _family(config).startswith(_TIED))),
        **_alternatives(config),
        "sources": [{"of": list(_ALL), "source": "config.json of the checkpoint", "date": written.isoformat()}],
    }


_ALL = (*_SHAPE, "kv_heads", "head_dim", "intermediate", "moe", "latent", "window")


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in config.items() if value is not None}
    return {**config, **_DEFAULTS.get(_family(config), {}), **said}


def _family(config: Mapping[str, Any]) -> str:
    return str(config.get("model_type") or "")


def _refuse_others(config: Mapping[str, Any], origin: str) -> None:
    """Layers that keep no keys and values, or an encoder: counts of them would be wrong."""
    others = sorted(set(config.get("layer_types") or ()) - set(_ATTENTION))
    others += [name for name in _RECURRENT if config.get(name)]
    if config.get("is_encoder_decoder"):
        others.append("is_encoder_decoder")
    if others:
        raise ConfigError(f"{origin}: only decoders of attention layers are understood, not {', '.join(others)}")


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """One for all heads where Falcon and StarCoder say so."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    return int(_first(config, ("num_key_value_heads", "num_kv_heads")) or heads)


def _alternatives(config: Mapping[str, Any]) -> dict[str, Any]:
    parts = {"moe": _moe(config), "latent": _latent(config), "window": _window(config)}
    return {name: part for name, part in parts.items() if part}


def _moe(config: Mapping[str, Any]) -> dict[str, Any] | None:
    experts = _first(config, _EXPERTS)
    if not experts or experts < 2:
        return None
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    found = {
        "experts": experts,
        "active": _first(config, ("num_experts_per_tok", "experts_per_token", "moe_topk")) or 1,
        "intermediate": width,
        "shared": _shared(config, width),
        "dense_layers": _dense_layers(config),
    }
    if (config.get("quantization_config") or {}).get("quant_method") == "mxfp4":
        found["precision"] = "fp4"
    return found


def _shared(config: Mapping[str, Any], width: int) -> int:
    """Experts that every token visits, as many of a routed one's width."""
    if together := config.get("shared_expert_intermediate_size"):
        return max(1, round(float(together) / width))
    return int(config.get("n_shared_experts") or _family(config).startswith("llama4"))


def _dense_layers(config: Mapping[str, Any]) -> int:
    """Leading ones, those that are listed, and all but every so many-th."""
    layers = int(config["num_hidden_layers"])
    every = _first(config, ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq")) or 1
    listed = config.get("mlp_only_layers") or ()
    leading = config.get("first_k_dense_replace") or 0
    sparse = [
        n for n in range(leading, layers) if n not in listed and (isinstance(every, list) or (n + 1) % every == 0)
    ]
    return layers - len(sparse)


def _latent(config: Mapping[str, Any]) -> dict[str, Any] | None:
    if not config.get("kv_lora_rank"):
        return None
    names = {"query_rank": "q_lora_rank", "kv_rank": "kv_lora_rank", "rope_dim": "qk_rope_head_dim"}
    names |= {"nope_dim": "qk_nope_head_dim", "value_dim": "v_head_dim"}
    return {field: config.get(name) for field, name in names.items()}


def _window(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which layers attend to a window or within a chunk: as `layer_types` lists them, by a pattern, or all of them."""
    tokens = _first(config, ("sliding_window", "attention_chunk_size"))
    if not tokens or config.get("use_sliding_window") is False:
        return None
    layers = int(config["num_hidden_layers"])
    pattern = _first(config, ("sliding_window_pattern", "_sliding_window_pattern", "no_rope_layer_interval"))
    if pattern is None and config.get("attention_chunk_size"):
        pattern = 4  # Llama 4's default: every fourth layer sees all
    if kinds := config.get("layer_types"):
        windowed = sum(kind in _WINDOWED for kind in kinds)
    else:
        windowed = layers - layers // pattern if pattern else layers
    return {"tokens": tokens, "layers": windowed} if windowed else None


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)
