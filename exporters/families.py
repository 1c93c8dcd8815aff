"""Which checkpoints the native route reads: each family's config, turned into the one description of a decoder.

Every key of a config must be understood: it is read here, or known to leave the logits alone, or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from octavo.exporters.dialect import older
from octavo.exporters.keys import Keys
from octavo.exporters.longrope import stretched
from octavo.exporters.rope import RopeContext, longest_context, rotary
from octavo.exporters.spec import Activation, Decoder, Experts, Head, Layer
from octavo.profiles.errors import BundleError

LONGEST = 32768  # tokens; what the cos and sin tables hold unless more is asked for
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
}


def describe(config: Mapping[str, Any], head: Head = "logits", max_length: int | None = None) -> Decoder:
    """The decoder that a config stands for. Raises BundleError naming the key that is missing, wrong or unknown."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise BundleError(f"config.json: model_type {family!r} is not supported; supported are {', '.join(FAMILIES)}")
    keys = Keys(stretched(older(config), max_length))
    keys.refuse("quantization_config", None)
    decoder = FAMILIES[str(family)](keys, head)
    keys.refuse_unread()
    limit = min(decoder.max_length, max_length or LONGEST)
    return _checked(replace(decoder, max_length=limit))


def _checked(decoder: Decoder) -> Decoder:
    if decoder.heads % decoder.kv_heads:
        raise BundleError(
            f"config.json: num_attention_heads={decoder.heads} is no multiple of num_key_value_heads={decoder.kv_heads}"
        )
    if decoder.head_dim % 2 or 2 * len(decoder.layers[0].rotary.inverse_frequencies) > decoder.head_dim:
        raise BundleError(f"config.json: head_dim={decoder.head_dim} does not fit its rotary embedding")
    if decoder.experts and decoder.activation != "silu":
        raise BundleError(
            f"config.json: sparse layers are supported with hidden_act 'silu', not {decoder.activation!r}"
        )
    return decoder


def _decoder(keys: Keys, head: Head, windows: list[int | None] | None = None, **features: Any) -> Decoder:
    """What the families have in common; `features` override it."""
    heads, count = keys.count("num_attention_heads"), keys.count("num_hidden_layers")
    head_dim = features.pop("head_dim", None) or (
        keys.count("head_dim") if keys.get("head_dim") is not None else keys.count("hidden_size") // heads
    )
    max_length = keys.count("max_position_embeddings", features.pop("max_length", 2048))
    theta = features.pop("theta", 1e4)
    layers = features.pop("layers", None) or _layers(keys, head_dim, max_length, windows or [None] * count, theta)
    return Decoder(
        family=keys.need("model_type"),
        vocab_size=keys.count("vocab_size"),
        hidden_size=keys.count("hidden_size"),
        intermediate_size=keys.count("intermediate_size"),
        heads=heads,
        kv_heads=_kv_heads(keys, heads, features.pop("kv_heads", heads)),
        head_dim=head_dim,
        max_length=features.pop("context", None) or _context(keys, max_length),
        layers=layers,
        norm_epsilon=keys.number("rms_norm_eps", features.pop("epsilon", 1e-6)),
        attention_scale=features.pop("scale", None) or head_dim**-0.5,
        activation=features.pop("activation", None) or _activation(keys, "hidden_act", "silu"),
        head=head,
        tied=keys.flag("tie_word_embeddings", default=features.pop("tied", False)),
        **features,
    )


def _activation(keys: Keys, key: str, default: str) -> Activation:
    name = keys.get(key, default)
    if name not in ACTIVATIONS:
        raise BundleError(f"config.json: {key}={name!r} is not supported; supported are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _kv_heads(keys: Keys, heads: int, default: int) -> int:
    """A config that says null means as many as there are heads, one that is silent the family's number."""
    return keys.count("num_key_value_heads", heads if keys.has("num_key_value_heads") else default)


def _scaling(keys: Keys) -> dict[str, Any]:
    scaling = keys.get("rope_scaling", {})
    if not isinstance(scaling, dict):
        raise BundleError(f"config.json: rope_scaling must be an object, got {scaling!r}")
    older_names = {"su": "longrope", "yarn": "longrope"} if keys.need("model_type") == "phi3" else {}
    return {key: older_names.get(str(value), value) if key == "type" else value for key, value in scaling.items()}


def _original_length(keys: Keys) -> int | None:
    default = 4096 if keys.need("model_type") == "phi3" else None
    value = keys.get("original_max_position_embeddings", default)
    return keys.count("original_max_position_embeddings", default) if value else None


def _context(keys: Keys, max_length: int) -> int:
    return longest_context(_scaling(keys), max_length, _original_length(keys))


def _layers(keys: Keys, head_dim: int, max_length: int, windows: list[int | None], theta: float) -> tuple[Layer, ...]:
    if keys.need("model_type") != "phi3":
        keys.refuse("partial_rotary_factor", 1.0)
    dims = int(head_dim * keys.number("partial_rotary_factor", 1.0))
    theta = keys.number("rope_theta", theta)
    turn = rotary(RopeContext(theta, dims, max_length, _original_length(keys)), _scaling(keys))
    return tuple(Layer(turn, window) for window in windows)


def _window(keys: Keys, default: int | None) -> int | None:
    """A config that says null means no window, one that is silent the family's."""
    silent = keys.get("sliding_window") is None
    return (None if keys.has("sliding_window") else default) if silent else keys.count("sliding_window")


def _every_layer(keys: Keys, default: int | None) -> list[int | None]:
    return [_window(keys, default)] * keys.count("num_hidden_layers")


def _by_type(keys: Keys, sliding: Callable[[int], bool], window: int | None) -> list[int | None]:
    """Windows of layers that are of two types: what `layer_types` says, else the family's rule."""
    count = keys.count("num_hidden_layers")
    types = keys.get("layer_types") or ["sliding_attention" if sliding(i) else "full_attention" for i in range(count)]
    if len(types) != count or not set(types) <= {"sliding_attention", "full_attention"}:
        raise BundleError(f"config.json: layer_types must name {count} layers as sliding_attention or full_attention")
    return [window if kind == "sliding_attention" else None for kind in types]


def _llama(keys: Keys, head: Head) -> Decoder:
    bias = keys.flag("attention_bias")
    return _decoder(keys, head, qkv_bias=bias, output_bias=bias, mlp_bias=keys.flag("mlp_bias"), max_length=2048)


def _mistral(keys: Keys, head: Head) -> Decoder:
    keys.refuse("layer_types", None)
    return _decoder(keys, head, _every_layer(keys, 4096), kv_heads=8, max_length=4096 * 32)


def _mixtral(keys: Keys, head: Head) -> Decoder:
    experts = Experts(
        count=keys.count("num_local_experts", 8),
        chosen=keys.count("num_experts_per_tok", 2),
        size=keys.count("intermediate_size"),
        normalized=True,
        source="block_sparse_moe",
        parts=("w1", "w3", "w2"),
    )
    keys.get("router_jitter_noise")
    return _decoder(
        keys, head, _every_layer(keys, None), kv_heads=8, experts=experts, epsilon=1e-5, theta=1e6, max_length=4096 * 32
    )


def _qwen_windows(keys: Keys) -> list[int | None]:
    window = _window(keys, 4096)
    first = keys.get("max_window_layers", 28)
    used = keys.flag("use_sliding_window")
    return _by_type(keys, lambda layer: used and layer >= first, window if used else None)


def _qwen2(keys: Keys, head: Head) -> Decoder:
    return _decoder(keys, head, _qwen_windows(keys), qkv_bias=True, kv_heads=32, max_length=32768)


def _qwen3(keys: Keys, head: Head) -> Decoder:
    bias = keys.flag("attention_bias")
    return _decoder(
        keys,
        head,
        _qwen_windows(keys),
        head_dim=keys.count("head_dim", 128),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        kv_heads=32,
        max_length=32768,
    )


def _dense_layers(keys: Keys) -> frozenset[int]:
    """Layers whose feed-forward is a plain one."""
    count, step = keys.count("num_hidden_layers"), keys.count("decoder_sparse_step", 1)
    only = keys.get("mlp_only_layers", [])
    return frozenset(layer for layer in range(count) if layer in only or (layer + 1) % step)


def _qwen3_moe(keys: Keys, head: Head) -> Decoder:
    experts = Experts(
        count=keys.count("num_experts", 128),
        chosen=keys.count("num_experts_per_tok", 8),
        size=keys.count("moe_intermediate_size", 768),
        normalized=keys.flag("norm_topk_prob"),
        source="mlp",
        parts=("gate_proj", "up_proj", "down_proj"),
    )
    bias = keys.flag("attention_bias")
    used = keys.flag("use_sliding_window")
    window = _window(keys, 4096) if used else None
    keys.get("max_window_layers")
    return _decoder(
        keys,
        head,
        [window] * keys.count("num_hidden_layers"),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        experts=experts,
        dense_layers=_dense_layers(keys),
        kv_heads=4,
        max_length=32768,
    )


def _gemma_features(keys: Keys) -> dict[str, Any]:
    bias = keys.flag("attention_bias")
    return {
        "head_dim": keys.count("head_dim", 256),
        "norm_offset": 1.0,
        "embedding_scale": keys.count("hidden_size") ** 0.5,
        "tied": True,
        "qkv_bias": bias,
        "output_bias": bias,
        "max_length": 8192,
    }


def _gemma(keys: Keys, head: Head) -> Decoder:
    keys.get("hidden_activation")
    activation = _activation(keys, "hidden_act", "gelu_pytorch_tanh")
    return _decoder(keys, head, activation=activation, kv_heads=16, **_gemma_features(keys))


def _gemma2(keys: Keys, head: Head) -> Decoder:
    keys.get("hidden_act")
    return _decoder(
        keys,
        head,
        _by_type(keys, lambda layer: layer % 2 == 0, keys.count("sliding_window", 4096)),
        activation=_activation(keys, "hidden_activation", "gelu_pytorch_tanh"),
        scale=keys.number("query_pre_attn_scalar", 256) ** -0.5,
        attention_cap=_cap(keys, "attn_logit_softcapping", 50.0),
        logit_cap=_cap(keys, "final_logit_softcapping", 30.0),
        sandwich_norms=True,
        kv_heads=4,
        **_gemma_features(keys),
    )


def _gemma3(keys: Keys, head: Head) -> Decoder:
    keys.refuse("use_bidirectional_attention", False)
    keys.refuse("attn_logit_softcapping", None)  # transformers 4.57 reads it and does not apply it
    keys.get("hidden_act")
    pattern = keys.count("sliding_window_pattern", 6)
    windows = _by_type(keys, lambda layer: bool((layer + 1) % pattern), keys.count("sliding_window", 4096))
    features = _gemma_features(keys) | {"max_length": 131072}
    return _decoder(
        keys,
        head,
        layers=_gemma3_layers(keys, features["head_dim"], windows),
        activation=_activation(keys, "hidden_activation", "gelu_pytorch_tanh"),
        scale=keys.number("query_pre_attn_scalar", 256) ** -0.5,
        logit_cap=_cap(keys, "final_logit_softcapping", None),
        sandwich_norms=True,
        qk_norm=True,
        kv_heads=4,
        **features,
    )


def _gemma3_layers(keys: Keys, head_dim: int, windows: list[int | None]) -> tuple[Layer, ...]:
    """Sliding layers turn at the local base frequency, unscaled; full layers at `rope_theta`, scaled."""
    length = keys.count("max_position_embeddings", 131072)
    theta, local = keys.number("rope_theta", 1e6), keys.number("rope_local_base_freq", 1e4)
    keys.refuse("partial_rotary_factor", 1.0)
    full = rotary(RopeContext(theta, head_dim, length, _original_length(keys)), _scaling(keys))
    near = rotary(RopeContext(local, head_dim, length), None)
    return tuple(Layer(full if window is None else near, window) for window in windows)


def _cap(keys: Keys, key: str, default: float | None) -> float | None:
    if keys.get(key) is None:
        return None if keys.has(key) else default
    return keys.number(key, 1.0)


def _phi3(keys: Keys, head: Head) -> Decoder:
    for neutral in ("interpolate_factor", "full_attn_mod"):  # Phi-4 mini says of both that they are 1
        keys.refuse(neutral, 1)
    return _decoder(
        keys, head, _every_layer(keys, None), epsilon=1e-5, max_length=4096, fused_qkv=True, fused_gate_up=True
    )


FAMILIES: dict[str, Callable[[Keys, Head], Decoder]] = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi3": _phi3,
}
