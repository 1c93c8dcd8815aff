"""A language model by its shape: parameters, bytes and FLOPs follow from it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from octavo.profiles.fact import Entry, Fact
from octavo.profiles.quantity import BITS, Count, Precision

VOCABULARY_BITS = 16.0
"""Of embedding and head, at least: published checkpoints in fewer bits leave them as they were."""
TOLERANCE = 0.02
"""How far a stated parameter count may be from the shape's: biases and a few norms are not in the shape."""


class Moe(Entry):
    """A sparse mixture: of `experts` feed-forward blocks per layer, each token visits `active` (and all `shared`)."""

    experts: int = Field(gt=1)
    active: int = Field(gt=0)
    intermediate: int = Field(gt=0, description="width of one expert")
    shared: int = Field(default=0, ge=0)
    dense_layers: int = Field(default=0, ge=0, description="layers with an ordinary feed-forward block")
    precision: Precision | None = Field(default=None, description="in which the experts' weights are published")

    @model_validator(mode="after")
    def _active_exist(self) -> Self:
        if self.active > self.experts:
            raise ValueError(f"active ({self.active}) must be at most experts ({self.experts})")
        return self


class Latent(Entry):
    """Multi-head latent attention (DeepSeek): a layer caches one compressed vector per token for all heads."""

    query_rank: int | None = Field(default=None, gt=0, description="None: queries are not compressed")
    kv_rank: int = Field(gt=0)
    rope_dim: int = Field(gt=0)
    nope_dim: int = Field(gt=0)
    value_dim: int = Field(gt=0)


class Window(Entry):
    """Some layers attend to (and keep) only the newest tokens."""

    tokens: int = Field(gt=0)
    layers: int = Field(gt=0)


class Model(Fact):
    """A decoder. `parameters` is derived from the shape; a stated count that disagrees by over 2 % is refused."""

    family: str = ""
    rumour: bool = Field(default=False, description="nobody who knows has confirmed it")
    stated_parameters: Count | None = Field(default=None, alias="parameters")
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    intermediate: int = Field(gt=0, description="width of the dense feed-forward block")
    vocab: int = Field(gt=0)
    gated: bool = Field(default=True, description="three feed-forward matrices (SwiGLU) rather than two")
    tied_embeddings: bool = False
    max_context: int = Field(gt=0, description="tokens")
    moe: Moe | None = None
    latent: Latent | None = None
    window: Window | None = None
    block_scales: bool = Field(
        default=False, description="its fp8 checkpoint, as published, scales blocks of 128 x 128 weights by themselves"
    )

    @model_validator(mode="after")
    def _shape_agrees(self) -> Self:
        stated, derived, wrong = self.stated_parameters, self.parameters, []
        if stated and abs(derived / stated - 1) > TOLERANCE:
            wrong.append(f"parameters: stated {stated / 1e9:.4g} B, but the shape has {derived / 1e9:.4g} B")
        if self.window and self.window.layers > self.layers:
            wrong.append(f"window.layers: at most layers ({self.layers}), got {self.window.layers}")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @property
    def attention_parameters(self) -> int:
        """Of one layer."""
        if (m := self.latent) is None:
            return self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        queries = self.heads * (m.nope_dim + m.rope_dim)
        query = self.hidden * queries if m.query_rank is None else m.query_rank * (self.hidden + queries)
        key_value = self.hidden * (m.kv_rank + m.rope_dim) + m.kv_rank * self.heads * (m.nope_dim + m.value_dim)
        return query + key_value + self.heads * m.value_dim * self.hidden

    def feed_forward_parameters(self, width: int) -> int:
        """Of one feed-forward block."""
        return (3 if self.gated else 2) * self.hidden * width

    @property
    def embedding_parameters(self) -> int:
        return self.vocab * self.hidden

    @property
    def sparse_layers(self) -> int:
        return self.layers - self.moe.dense_layers if self.moe else 0

    def _parameters(self, experts: int) -> int:
        """With this many experts of every sparse layer counted."""
        dense_layers = self.layers - self.sparse_layers
        total = self.layers * self.attention_parameters + dense_layers * self.feed_forward_parameters(self.intermediate)
        if self.moe:
            blocks = (experts + self.moe.shared) * self.feed_forward_parameters(self.moe.intermediate)
            total += self.sparse_layers * (blocks + self.moe.experts * self.hidden)
        return total + self.embedding_parameters * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        return self._parameters(self.moe.experts if self.moe else 0)

    @property
    def active_parameters(self) -> int:
        """Those that one token passes through."""
        return self._parameters(self.moe.active if self.moe else 0)

    @property
    def flops_per_token(self) -> int:
        """Multiply-adds count two; the input embedding is a look-up and costs nothing. Attention comes on top."""
        looked_up = 0 if self.tied_embeddings else self.embedding_parameters
        return 2 * (self.active_parameters - looked_up)

    def attention_flops(self, context: float) -> float:
        """FLOPs of one new token that attends to `context` tokens: scores and weighted sum, all layers."""
        if m := self.latent:
            return 2.0 * self.heads * (2 * m.kv_rank + m.rope_dim) * self._seen(context)
        return 4.0 * self.heads * self.head_dim * self._seen(context)

    def _seen(self, context: float) -> float:
        """Context summed over layers, windows applied."""
        if self.window is None:
            return self.layers * context
        return (self.layers - self.window.layers) * context + self.window.layers * min(context, self.window.tokens)

    def _expert_bits(self, precision: Precision) -> float:
        """Of sparse experts; those that are published in fewer bits stay so."""
        own = self.moe.precision if self.moe else None
        return min(BITS[precision], BITS[own or precision])

    def _expert_parameters(self, experts: float) -> float:
        """Of so many experts in every sparse layer, those that are always visited aside."""
        return self.sparse_layers * experts * self.feed_forward_parameters(self.moe.intermediate) if self.moe else 0.0

    def weight_bytes(self, precision: Precision) -> float:
        sparse = self._expert_parameters(self.moe.experts if self.moe else 0)
        vocabulary = self.embedding_parameters * (1 if self.tied_embeddings else 2)
        return self._bytes(self.parameters - sparse - vocabulary, vocabulary, sparse, precision)

    def _bytes(self, dense: float, vocabulary: float, sparse: float, precision: Precision) -> float:
        """Of so many parameters of each kind."""
        bits, own = BITS[precision], self._expert_bits(precision)
        return (dense * bits + vocabulary * max(bits, VOCABULARY_BITS) + sparse * own) / 8

    def weight_bytes_read(self, precision: Precision, tokens: float) -> float:
        """Bytes of weights that a step over `tokens` tokens reads: of a sparse layer only the experts that are visited.

        Expects tokens to choose experts independently: E (1 - (1 - k/E)^tokens) of E are visited.
        """
        head = self.embedding_parameters
        dense = self.flops_per_token / 2 - head
        if self.moe is None:
            return self._bytes(dense, head, 0.0, precision)
        visited = self.moe.experts * (1 - (1 - self.moe.active / self.moe.experts) ** tokens)
        sparse = self._expert_parameters(visited)
        return self._bytes(dense - self._expert_parameters(self.moe.active), head, sparse, precision)

    @property
    def kv_elements_per_token(self) -> int:
        """Of one layer: a key and a value per KV head, or the latent vector."""
        return self.latent.kv_rank + self.latent.rope_dim if self.latent else 2 * self.kv_heads * self.head_dim

    def kv_bytes_per_token(self, precision: Precision) -> float:
        """In all layers; of a long sequence, layers with a window keep less (see kv_bytes)."""
        return self.layers * self.kv_elements_per_token * BITS[precision] / 8

    def kv_bytes(self, tokens: float, precision: Precision) -> float:
        """What a sequence of `tokens` keeps, windows applied."""
        return self._seen(tokens) * self.kv_elements_per_token * BITS[precision] / 8

    def lora_parameters(self, rank: int) -> int:
        """Of an adapter on every linear layer of attention and feed-forward blocks (not on sparse experts)."""
        attention = 2 * (self.hidden + self.heads * self.head_dim) + 2 * (self.hidden + self.kv_heads * self.head_dim)
        dense = (3 if self.gated else 2) * (self.hidden + self.intermediate)
        return rank * (self.layers * attention + (self.layers - self.sparse_layers) * dense)
