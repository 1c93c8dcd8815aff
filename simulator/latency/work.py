"""What a step computes and moves: FLOPs and bytes, from the model's shape.

A token costs two FLOPs per parameter that it passes (Kaplan et al. 2020, section 2.1) and attends to what is before
it; a step reads the weights once for all its tokens, and every row its own keys and values. Only rows that are sampled
pass the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from octavo.profiles.model import Model
from octavo.profiles.quantity import BITS, Precision
from octavo.runtime.core.scheduler import Chunk


@dataclass
class Work:
    """A model's costs at its precisions; `adapters` experts of rank `lora_rank` may stand beside the base."""

    model: Model
    precision: Precision
    kv_precision: Precision
    lora_rank: int = 0
    adapters: int = 0
    _bytes: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.model
        self.layers, self.window, self.sparse = model.layers, model.window, model.moe is not None
        self.head_flops = 2.0 * model.embedding_parameters
        self.adapter_parameters = float(model.lora_parameters(self.lora_rank)) if self.lora_rank else 0.0
        self.token_flops = model.flops_per_token - self.head_flops + 2 * self.adapter_parameters
        self.kv_bytes_per_token = model.kv_elements_per_token * BITS[self.kv_precision] / 8
        self.attention_flops_per_token = model.attention_flops(1) / model.layers
        self.activation_bytes = 2.0 * model.hidden
        self.passed_bytes, self.gate_bytes = self._passed()

    def _passed(self) -> tuple[float, float]:
        """Bytes of a token that norms, and that gates, read and write: no product, and no attention.

        A layer adds and norms the hidden state twice, and a feed-forward block reads two vectors (one, where nothing is
        gated) and writes one, all in sixteen bits.
        """
        model, moe = self.model, self.model.moe
        width = (model.layers - model.sparse_layers) * model.intermediate
        if moe is not None:
            width += model.sparse_layers * (moe.active + moe.shared) * moe.intermediate
        return 2 * 4 * self.activation_bytes * model.layers, (3 if model.gated else 2) * 2.0 * width

    def weight_bytes(self, tokens: int) -> float:
        """Weights that a step over `tokens` tokens reads, and the adapters that so many tokens may need."""
        key = tokens if self.sparse else min(tokens, self.adapters)
        found = self._bytes.get(key)
        if found is None:
            read = self.model.weight_bytes_read(self.precision, tokens)
            found = self._bytes[key] = read + 2.0 * self.adapter_parameters * min(tokens, self.adapters)
        return found

    def seen(self, rows: int, context: int) -> tuple[float, float, float]:
        """KV tokens that rows read, summed over layers; how many more per token; up to which context that holds."""
        layers, window = self.layers, self.window
        if window is None:
            return float(layers * context), float(layers), inf
        kept = layers - window.layers
        border = window.tokens * rows
        if context < border:
            return float(layers * context), float(layers), float(border)
        return float(kept * context + window.layers * border), float(kept), inf

    def prefill_pairs(self, start: int, tokens: int) -> float:
        """Pairs of a new token and one that it attends to, summed over layers."""
        layers, window = self.layers, self.window
        pairs = tokens * start + tokens * (tokens + 1) / 2
        if window is None:
            return layers * pairs
        return (layers - window.layers) * pairs + window.layers * min(pairs, float(tokens * window.tokens))

    def prefill_reads(self, start: int, tokens: int) -> float:
        """KV tokens that a chunk reads, summed over layers."""
        layers, window = self.layers, self.window
        if window is None:
            return float(layers * (start + tokens))
        return (layers - window.layers) * (start + tokens) + window.layers * min(start, window.tokens) + tokens

    def chunk_totals(self, chunks: Sequence[Chunk]) -> tuple[int, int, float, float]:
        """New tokens, rows sampled, attended pairs and KV tokens read of some chunks."""
        tokens = sampled = 0
        pairs = reads = 0.0
        for chunk in chunks:
            tokens += chunk.tokens
            sampled += chunk.completes
            pairs += self.prefill_pairs(chunk.start, chunk.tokens)
            reads += self.prefill_reads(chunk.start, chunk.tokens)
        return tokens, sampled, pairs, reads
