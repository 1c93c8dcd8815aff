"""What a decoder computes, as data: the one description that every lowering reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
Head = Literal["logits", "score"]


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary embedding of the first `2 * len(inverse_frequencies)` elements of each head.

    Position p turns pair i by p * inverse_frequencies[i] radians; cos and sin are multiplied by `scale`.
    """

    inverse_frequencies: tuple[float, ...]
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Layer:
    """What may differ from layer to layer. `window` counts the keys that a query sees, itself included."""

    rotary: Rotary
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Experts:
    """A sparse feed-forward: softmax over `count` router logits, the largest `chosen` are run and mixed.

    `size` is the width of one expert; `source` and `parts` (gate, up, down) are their names in the checkpoint.
    """

    count: int
    chosen: int
    size: int
    normalized: bool
    source: str
    parts: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder-only transformer with RMS norms, rotary attention and gated feed-forward layers.

    Sizes are in elements, `max_length` in tokens. `norm_offset` is added to every norm's weight (Gemma: 1).
    `*_cap` is the c of c * tanh(x / c). The fused flags speak of the checkpoint's tensors, not of the graph.
    Where there are `experts`, `dense_layers` are the indices of the layers without.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    max_length: int
    layers: tuple[Layer, ...]
    norm_epsilon: float
    attention_scale: float
    activation: Activation
    head: Head = "logits"
    tied: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norm_offset: float = 0.0
    sandwich_norms: bool = False
    embedding_scale: float | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
    experts: Experts | None = None
    dense_layers: frozenset[int] = frozenset()
    fused_qkv: bool = False
    fused_gate_up: bool = False
