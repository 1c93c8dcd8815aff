"""Candidates from a decoder, hundreds at a time with a KV cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from octavo.exporters.train.alphabet import CHARACTERS, EOS, PAD, SPECIAL
from octavo.exporters.train.models import Network

ROWS = 1024  # per forward pass: bounds the memory


@dataclass(frozen=True, slots=True)
class Samples:
    """What was written after each prompt: token ids up to `eos`, then `pad`; and the mean log-prob of a token."""

    tokens: Tensor  # (rows, new tokens)
    mean_logprob: Tensor  # (rows,)

    def texts(self) -> list[str]:
        return [
            "".join(CHARACTERS[token - len(SPECIAL)] for token in row if token >= len(SPECIAL))
            for row in self.tokens.tolist()
        ]


@torch.no_grad()
def sample(model: Network, prompts: Tensor, new_tokens: int, temperature: float, seed: int) -> Samples:
    """One candidate per row of `prompts`; temperature 0 is greedy."""
    generator = torch.Generator().manual_seed(seed)
    parts = [_sample(model, rows, new_tokens, temperature, generator) for rows in torch.split(prompts, ROWS)]
    return Samples(torch.cat([part.tokens for part in parts]), torch.cat([part.mean_logprob for part in parts]))


def _sample(
    model: Network, prompts: Tensor, new_tokens: int, temperature: float, generator: torch.Generator
) -> Samples:
    cache, step, ended = DynamicCache(), prompts, torch.zeros(len(prompts), dtype=torch.bool)
    tokens, logprobs = [], torch.zeros(len(prompts))
    for _ in range(new_tokens):
        logits = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        chosen = _choose(logits, temperature, generator).masked_fill(ended, PAD)
        logprobs += logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0].masked_fill(ended, 0)
        ended |= chosen == EOS
        step = chosen[:, None]
        tokens.append(step)
    written = torch.cat(tokens, 1)
    return Samples(written, logprobs / (written != PAD).sum(1))


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
