"""Checkpoints whose language model lies inside something larger, or is saved without its head's name before it.

A multimodal model is read as the language model that it contains: text in, text out. What it sees with is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from octavo.exporters.checkpoint import Checkpoint
from octavo.profiles.errors import BundleError

WRAPPERS = ("gemma3", "mistral3", "llava", "llava_next")
# What every checkpoint's own name of a tensor becomes; transformers 4 and 5 save them differently.
RENAMED = {
    r"^(language_model\.model|model\.language_model)\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}
SEEING = re.compile(r"^(model\.)?(vision_tower|multi_modal_projector|image_newline)(\.|$)")
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
# What transformers takes where a wrapper's `text_config` is silent, and its family's config is never.
SILENT: dict[str, dict[str, int]] = {
    family: dict(
        zip(
            ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
            sizes,
            strict=True,
        )
    )
    for family, sizes in {
        "gemma3_text": (262208, 2304, 9216, 26, 8),
        "llama": (32000, 4096, 11008, 32, 32),
        "mistral": (32000, 4096, 14336, 32, 32),
    }.items()
}


def is_wrapper(config: Mapping[str, Any]) -> bool:
    """Whether a config is of a multimodal model whose language model can be taken out."""
    return config.get("model_type") in WRAPPERS


def language_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the language model: the config itself, or the one inside a wrapper's. Raises BundleError."""
    if not is_wrapper(config):
        return dict(config)
    text = config.get("text_config")
    if not isinstance(text, dict):
        raise BundleError(f"config.json: text_config must be an object in a {config['model_type']!r}, got {text!r}")
    text = {"model_type": "gemma3_text" if config["model_type"] == "gemma3" else "llama"} | text
    special = {key: config[key] for key in SPECIAL if config.get(key) is not None}
    return SILENT.get(text["model_type"], {}) | text | special


def language_model(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint of the language model alone, its tensors named as its family names them."""
    config, tensors = language_config(checkpoint.config), checkpoint.tensors
    if is_wrapper(checkpoint.config):
        tensors = {_plain(name): tensor for name, tensor in tensors.items() if not SEEING.match(name)}
    if "embed_tokens.weight" in tensors:  # saved as a trunk, without the head that reads it
        tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}
    return replace(checkpoint, config=config, tensors=tensors)


def _plain(name: str) -> str:
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name
