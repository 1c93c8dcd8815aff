"""The networks: a small Llama decoder, the average of several, and the value model grown from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from octavo.exporters.train.alphabet import BOS, EOS, IDS, PAD
from octavo.exporters.train.recipe import Recipe, Shape

Network = Any  # transformers gives no types
POSITIONS = 64


def new_decoder(recipe: Recipe) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(_config(recipe.shape, recipe.shape.layers))
    model.generation_config = GenerationConfig(
        max_new_tokens=recipe.new_tokens,
        do_sample=True,
        temperature=recipe.temperature,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    return model


def open_decoder(folder: Path) -> Network:
    return LlamaForCausalLM.from_pretrained(folder)


def average(models: Sequence[Network]) -> Network:
    """The soup: the first model with the mean of all weights."""
    states = [model.state_dict() for model in models]
    soup = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    models[0].load_state_dict(soup)
    return models[0]


def grow_value(decoder: Network, recipe: Recipe) -> Network:
    """A value model: the decoder's trunk, new layers on top that start as almost nothing, and one logit."""
    trunk = recipe.shape.layers
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed + 1)
        value = LlamaForSequenceClassification(_config(recipe.shape, trunk + recipe.value.layers, num_labels=1))
    value.model.load_state_dict(decoder.model.state_dict(), strict=False)
    with torch.no_grad():
        for layer in value.model.layers[trunk:]:
            layer.self_attn.o_proj.weight.mul_(0.1)
            layer.mlp.down_proj.weight.mul_(0.1)
    return value


def _config(shape: Shape, layers: int, **more: int) -> Any:
    return LlamaConfig(
        vocab_size=len(IDS),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        **more,
    )
