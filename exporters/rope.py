"""Rotary embedding: inverse frequencies of every scaling in use, as transformers computes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.net import Net
from octavo.exporters.spec import Rotary
from octavo.profiles.errors import BundleError

MAY_BE_ZERO = ("mscale", "mscale_all_dim", "beta_fast", "beta_slow")  # then they do not count


@dataclass(frozen=True, slots=True)
class RopeContext:
    """What a scaling may look at: `dims` are rotated, lengths are in tokens."""

    theta: float
    dims: int
    max_length: int
    original_length: int | None = None

    @property
    def frequencies(self) -> Array:
        exponents = np.arange(0, self.dims, 2, dtype=np.float32) / np.float32(self.dims)
        return np.asarray(np.float32(1.0) / np.power(np.float32(self.theta), exponents, dtype=np.float32))


def rotary(context: RopeContext, scaling: Mapping[str, Any] | None) -> Rotary:
    """The rotary embedding of a config's `rope_scaling`. Raises BundleError for a kind or a key that is not known."""
    scaling = dict(scaling or {})
    names = {str(name) for key in ("rope_type", "type") if (name := scaling.pop(key, None))} or {"default"}
    if len(names) > 1:
        raise BundleError(f"rope_scaling: rope_type and type differ: {', '.join(sorted(names))}")
    kind = names.pop()
    if kind not in SCALINGS:
        raise BundleError(f"rope_scaling: type {kind!r} is not supported; supported are {', '.join(SCALINGS)}")
    rule, known = SCALINGS[kind]
    scaling = {key: value for key, value in scaling.items() if value is not None}
    unknown = sorted(key for key in set(scaling) - known)
    if unknown:
        raise BundleError(f"rope_scaling: {', '.join(unknown)} not understood for type {kind!r}")
    for key, value in scaling.items():
        _check_value(key, value, context)
    try:
        return rule(context, scaling)
    except KeyError as error:
        raise BundleError(f"rope_scaling: {error.args[0]} is missing for type {kind!r}") from None


def _check_value(key: str, value: Any, context: RopeContext) -> None:
    """Raise for a value that is not of its key's kind."""
    if key == "truncate" and isinstance(value, bool):
        return
    listed = key in ("short_factor", "long_factor")
    if listed and not (isinstance(value, list) and len(value) == context.dims // 2):
        raise BundleError(f"rope_scaling: {key} must be a list of {context.dims // 2} numbers, got {str(value)[:60]}")
    for number in value if listed else [value]:
        plain = isinstance(number, int | float) and not isinstance(number, bool)
        if not plain or not 0 <= number < math.inf or (number == 0 and key not in MAY_BE_ZERO):
            raise BundleError(f"rope_scaling: {key} must be a positive number, got {number!r}")


def longest_context(scaling: Mapping[str, Any] | None, max_length: int, original_length: int | None) -> int:
    """Tokens up to which one rotary table serves: LongRoPE changes it at the original length, unless both are alike."""
    scaling = scaling or {}
    kind = scaling.get("rope_type") or scaling.get("type")
    two = kind == "longrope" and scaling.get("short_factor") != scaling.get("long_factor")
    return min(max_length, original_length) if two and original_length else max_length


def _rotary(frequencies: Array, scale: float = 1.0) -> Rotary:
    return Rotary(tuple(float(value) for value in frequencies.astype(np.float32)), float(scale))


def _default(context: RopeContext, scaling: dict[str, Any]) -> Rotary:
    """Also dynamic NTK, which differs from it only beyond the context that the cache can hold."""
    return _rotary(context.frequencies)


def _linear(context: RopeContext, scaling: dict[str, Any]) -> Rotary:
    return _rotary(context.frequencies / np.float32(scaling["factor"]))


def _llama3(context: RopeContext, scaling: dict[str, Any]) -> Rotary:
    factor, low, high = (scaling[key] for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = scaling["original_max_position_embeddings"]
    frequencies = context.frequencies
    wavelengths = 2 * math.pi / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    blended = (1 - smooth) * frequencies / factor + smooth * frequencies
    scaled = np.where(wavelengths > original / low, frequencies / factor, frequencies)
    medium = (wavelengths >= original / high) & (wavelengths <= original / low)
    return _rotary(np.where(medium, blended, scaled))


def _yarn(context: RopeContext, scaling: dict[str, Any]) -> Rotary:
    factor = scaling["factor"]
    original = scaling.get("original_max_position_embeddings") or context.max_length
    bounds = [
        context.dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(context.theta))
        for turns in (scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1)
    ]
    if scaling.get("truncate", True):
        bounds = [math.floor(bounds[0]), math.ceil(bounds[1])]
    low, high = max(bounds[0], 0), min(bounds[1], context.dims - 1)
    ramp = np.clip(
        (np.arange(context.dims // 2, dtype=np.float32) - low) / (high - low if high != low else 0.001), 0, 1
    )
    frequencies = context.frequencies
    return _rotary(frequencies / factor * ramp + frequencies * (1 - ramp), _yarn_scale(scaling))


def _yarn_scale(scaling: dict[str, Any]) -> float:
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])

    def magnitude(weight: float) -> float:
        return 1.0 if scaling["factor"] <= 1 else 0.1 * weight * math.log(scaling["factor"]) + 1.0

    mscale, all_dims = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return magnitude(mscale) / magnitude(all_dims) if mscale and all_dims else magnitude(1.0)


def _longrope(context: RopeContext, scaling: dict[str, Any]) -> Rotary:
    """The short table; see `octavo.exporters.longrope`."""
    short = np.array(scaling["short_factor"], np.float32)
    original = context.original_length
    factor = context.max_length / original if original else scaling.get("factor")
    scale = scaling.get("attention_factor")
    if scale is None:
        base = original or context.max_length
        scale = 1.0 if not factor or factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(base))
    return _rotary(context.frequencies / short, scale)


_YARN_KEYS = {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale"}
SCALINGS: dict[str, tuple[Callable[[RopeContext, dict[str, Any]], Rotary], set[str]]] = {
    "default": (_default, set()),
    "linear": (_linear, {"factor"}),
    "dynamic": (_default, {"factor", "original_max_position_embeddings"}),
    "llama3": (_llama3, {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": (_yarn, _YARN_KEYS | {"mscale_all_dim", "truncate"}),
    "longrope": (_longrope, {"short_factor", "long_factor", "factor", "attention_factor"}),
}


def cos_sin(net: Net, rotary: Rotary, length: int, dtype: ir.DataType) -> tuple[ir.Value, ir.Value]:
    """Draw the tables [length, pairs] of cos and sin; the runtime folds them into constants when it loads the graph."""
    positions = net.op("Range", *(net.constant(np.array(n, np.float32), "position") for n in (0, length, 1)))
    column = net.op("Unsqueeze", positions, net.constant([1], "axis"))
    frequencies = net.constant(np.array([rotary.inverse_frequencies], np.float32), "inverse_frequencies")
    angles = net.op("Mul", column, frequencies)
    return _table(net, net.op("Cos", angles), rotary, dtype), _table(net, net.op("Sin", angles), rotary, dtype)


def _table(net: Net, table: ir.Value, rotary: Rotary, dtype: ir.DataType) -> ir.Value:
    if rotary.scale != 1.0:
        table = net.op("Mul", table, net.constant(rotary.scale, "rotary_scale"))
    return table if dtype == ir.DataType.FLOAT else net.op("Cast", table, to=dtype)
