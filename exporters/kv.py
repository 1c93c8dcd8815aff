"""The scales of an int8 KV cache: a stored number times its head's and channel's scale is what it stands for."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array
from octavo.exporters.weights import Weight

PARTS = ("key", "value")
LARGEST = 127
HEADROOM = 1.1  # of the largest seen: a larger one is cut off


def scale_weight(layer: int, part: str, kv_heads: int, head_dim: int) -> Weight:
    """[1, kv_heads, 1, head_dim] in float32; it comes from no checkpoint, but is measured once the rest is written."""
    shape = (1, kv_heads, 1, head_dim)
    return Weight(scale_name(layer, part), ir.DataType.FLOAT, shape, (), partial(np.ones, shape, np.float32))


def scale_name(layer: int, part: str) -> str:
    return f"layers.{layer}.self_attn.{part}_scale"


def widest_keys(keys: Array, pairs: int) -> Array:
    """The largest that each channel of some turned keys, [tokens, kv_heads, head_dim], can be at any position.

    Turning moves a pair's length between its two channels: at another position either may have all of it. `pairs` of
    them lie in the two halves of the first `2 * pairs` channels; the channels after those are not turned.
    """
    wide = np.abs(keys.astype(np.float32))
    lengths = np.hypot(wide[..., :pairs], wide[..., pairs : 2 * pairs])
    return np.asarray(np.concatenate([lengths, lengths, wide[..., 2 * pairs :]], axis=-1).max(axis=0))


def widest_values(values: Array) -> Array:
    """The largest of each channel of some values, [tokens, kv_heads, head_dim]."""
    return np.asarray(np.abs(values.astype(np.float32)).max(axis=0))


def scales_of(widest: Array) -> Array:
    """What maps the largest of each channel, and a little more, to 127; channels that are always zero get 1."""
    return np.where(widest > 0, widest * np.float32(HEADROOM / LARGEST), np.float32(1)).astype(np.float32)
