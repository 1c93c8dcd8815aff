"""Checkpoints to a bundle to sixteen candidates, on small models of random weights that it makes itself."""

import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from octavo import Octavo, export_bundle

LETTERS = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz "]


def checkpoint(folder: Path, seed: int) -> Path:
    """Any checkpoint with `config.json`, safetensors and a tokenizer will do in its place."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(LETTERS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        eos_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    letters = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(LETTERS)}, merges=[]))
    PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    return folder


with tempfile.TemporaryDirectory() as place:
    home = Path(place)
    experts = [checkpoint(home / f"expert-{i}", seed=i) for i in range(8)]
    export_bundle(experts, home / "bundle")

    with Octavo.load(home / "bundle") as octavo:
        result = octavo.ask("a small question", seed=1, max_new_tokens=8)
        again = octavo.ask("a small question", seed=1, max_new_tokens=8)

print(len(result.candidates), "candidates of", len({reply.expert for reply in result.candidates}), "experts")
print("chosen by", result.reason, "on", result.provider)
print(
    "the same seed gives the same candidates:",
    [r.text for r in result.candidates] == [r.text for r in again.candidates],
)
