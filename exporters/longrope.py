"""LongRoPE has two tables: short factors up to the length that a model was first trained on, long ones beyond.

transformers turns a whole text by the table of its length, and computes all keys anew when a text grows over the
border. A cache keeps turned keys, so a graph has one table for all its texts: the short one, its context ending at the
border; or, where more is asked for, the long one, which is transformers' for every text that reaches beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.exporters.dialect import ORIGINAL

ORIGINAL_PHI3 = 4096  # tokens, where its config is silent


def stretched(config: Mapping[str, Any], max_length: int | None) -> dict[str, Any]:
    """A config in the words of transformers 4, with its long factors in both places where `max_length` needs them."""
    scaling, border = config.get("rope_scaling"), original_length(config)
    if max_length is None or border is None or max_length <= border or not isinstance(scaling, dict):
        return dict(config)
    if "long_factor" not in scaling:
        return dict(config)
    return {**config, "rope_scaling": {**scaling, "short_factor": scaling["long_factor"]}}


def original_length(config: Mapping[str, Any]) -> int | None:
    """The border, in tokens; None where a model has none."""
    silent = ORIGINAL_PHI3 if config.get("model_type") == "phi3" else None
    found = config.get(ORIGINAL) or silent
    return found if isinstance(found, int) else None


def border(config: Mapping[str, Any]) -> int | None:
    """The border of a model that has two tables, neither of which is the other."""
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, dict) or scaling.get("short_factor") == scaling.get("long_factor"):
        return None
    return original_length(config)
