"""Configs as transformers 5 writes them, put into the words of transformers 4, in which everything here is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from octavo.profiles.errors import BundleError

Config = Mapping[str, Any]
NEWER = "rope_parameters"
ORIGINAL = "original_max_position_embeddings"


def older(config: Config) -> dict[str, Any]:
    """The same config in the words of transformers 4. Raises BundleError where it says one thing twice, differently.

    `rope_parameters` becomes `rope_theta`, `rope_scaling` and, where layers differ, `rope_local_base_freq`.
    """
    found = dict(config)
    if found.get("model_type") == "qwen3_moe":
        _move(found, "num_experts", found.pop("num_local_experts", None))
    if isinstance(scaling := found.get("rope_scaling"), dict):
        _move(found, "rope_theta", scaling.get("rope_theta"))
        found["rope_scaling"] = {key: value for key, value in scaling.items() if key != "rope_theta"}
    parameters = found.pop(NEWER, None)
    if parameters is None:
        return found
    if not isinstance(parameters, dict):
        raise BundleError(f"config.json: {NEWER} must be an object, got {parameters!r}")
    parameters = dict(parameters)
    if found.get("model_type") == "gemma3_text":
        parameters = _full_attention(found, parameters)
    _move(found, "rope_theta", parameters.pop("rope_theta", None))
    _put_scaling(found, parameters)
    return found


def _full_attention(found: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters of full layers, those of sliding layers moved to where transformers 4 has them."""
    full, sliding = (dict(parameters.pop(f"{kind}_attention", None) or {}) for kind in ("full", "sliding"))
    _move(found, "rope_local_base_freq", sliding.pop("rope_theta", None))
    if parameters or sliding.get("rope_type", "default") != "default" or len(sliding) > 1:
        raise BundleError(f"config.json: {NEWER}: {parameters or sliding} is not supported for sliding and full layers")
    return full


def _put_scaling(found: dict[str, Any], parameters: dict[str, Any]) -> None:
    kind = parameters.setdefault("rope_type", parameters.pop("type", None) or "default")
    _move(found, "partial_rotary_factor", parameters.pop("partial_rotary_factor", None))
    if kind == "longrope" or (found.get("model_type") == "phi3" and kind != "default"):
        _put_longrope(found, parameters)
    if kind == "yarn" and parameters.get("factor") is None:
        length = found.get("max_position_embeddings")
        original = parameters.get(ORIGINAL)
        parameters["factor"] = length / original if length and original else None
    _move(found, "rope_scaling", None if kind == "default" and len(parameters) == 1 else parameters)


def _put_longrope(found: dict[str, Any], parameters: dict[str, Any]) -> None:
    """A `factor` counts in transformers 5; transformers 4 takes the ratio of lengths instead."""
    parameters["type"] = parameters.pop("rope_type")
    _move(found, ORIGINAL, parameters.pop(ORIGINAL, None))
    factor, original = parameters.pop("factor", None), found.get(ORIGINAL) or found.get("max_position_embeddings")
    if factor is not None and parameters.get("attention_factor") is None and original:
        parameters["attention_factor"] = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def _move(found: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        return
    if found.get(key) not in (None, value):
        raise BundleError(f"config.json: {key}={found[key]!r}, and elsewhere in it {value!r}")
    found[key] = value
