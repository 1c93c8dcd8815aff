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
_UNGATED = ("gpt2", "gpt_neox", "gpt_bigcode", "opt", "phi", "bloom", "falcon", "starcoder2")


def config_in(path: Path | Traversable) -> Path | None:
    """The config.json of a checkpoint folder, or the file itself when that is what it is."""
    config = Path(str(path / "config.json" if path.is_dir() else path))
    return config if config.name == "config.json" and config.is_file() else None


def model_data(config: Mapping[str, Any], origin: str, written: date) -> dict[str, Any]:
    """Plain data of a Model. Raises ConfigError naming the keys that are missing."""
    config = {**config, **config.get("text_config", {})}
    shape = {field: _first(config, names) for field, names in _SHAPE.items()}
    if missing := [" or ".join(_SHAPE[field]) for field, value in shape.items() if value is None]:
        raise ConfigError(f"{origin}: not a decoder's config.json that is understood; missing {', '.join(missing)}")
    heads, hidden = shape["heads"], shape["hidden"]
    return {
        "name": origin,
        "family": str(config.get("model_type", "")),
        **shape,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or hidden // heads,
        "intermediate": _first(config, ("intermediate_size", "n_inner", "ffn_dim")) or 4 * hidden,
        "gated": config.get("model_type") not in _UNGATED,
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
        **_alternatives(config),
        "sources": [{"of": list(_ALL), "source": "config.json of the checkpoint", "date": written.isoformat()}],
    }


_ALL = (*_SHAPE, "kv_heads", "head_dim", "intermediate", "moe", "latent", "window")


def _alternatives(config: Mapping[str, Any]) -> dict[str, Any]:
    parts = {"moe": _moe(config), "latent": _latent(config), "window": _window(config)}
    return {name: part for name, part in parts.items() if part}


def _moe(config: Mapping[str, Any]) -> dict[str, Any] | None:
    experts = _first(config, _EXPERTS)
    if not experts or experts < 2:
        return None
    return {
        "experts": experts,
        "active": _first(config, ("num_experts_per_tok", "experts_per_token")) or 1,
        "intermediate": config.get("moe_intermediate_size") or config["intermediate_size"],
        "shared": config.get("n_shared_experts") or 0,
        "dense_layers": config.get("first_k_dense_replace") or 0,
    }


def _latent(config: Mapping[str, Any]) -> dict[str, Any] | None:
    if not config.get("kv_lora_rank"):
        return None
    names = {"query_rank": "q_lora_rank", "kv_rank": "kv_lora_rank", "rope_dim": "qk_rope_head_dim"}
    names |= {"nope_dim": "qk_nope_head_dim", "value_dim": "v_head_dim"}
    return {field: config[name] for field, name in names.items()}


def _window(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which layers attend to a window: as `layer_types` lists them, by a pattern, or all of them."""
    tokens = config.get("sliding_window")
    if not tokens or config.get("use_sliding_window") is False:
        return None
    layers = int(config["num_hidden_layers"])
    if kinds := config.get("layer_types"):
        windowed = sum(kind == "sliding_attention" for kind in kinds)
    elif pattern := config.get("sliding_window_pattern") or (2 if config.get("model_type") == "gemma2" else None):
        windowed = layers - layers // pattern
    else:
        windowed = layers
    return {"tokens": tokens, "layers": windowed} if windowed else None


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)
