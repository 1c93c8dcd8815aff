"""Whatever config somebody brings: drawn at random, it gives the original's logits, or is refused in one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octavo.exporters.export import export_bundle
from octavo.exporters.families import FAMILIES, describe

Config = dict[str, Any]
COUNT = 2
NEEDED = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
STEMS = {
    **{
        name: name.capitalize() for name in ("llama", "mistral", "mixtral", "gemma", "gemma2", "qwen2", "qwen3", "phi3")
    },
    "qwen3_moe": "Qwen3Moe",
    "gemma3_text": "Gemma3Text",
}


def config_class(family: str) -> Any:
    import transformers

    return getattr(transformers, f"{STEMS[family]}Config")


def sizes(draw: random.Random) -> Config:
    kv_heads = draw.choice([1, 2, 3])
    return {
        "vocab_size": draw.choice([61, 97, 128, 203]),
        "hidden_size": draw.choice([24, 48, 72, 120]),
        "intermediate_size": draw.choice([40, 64, 100]),
        "num_hidden_layers": draw.choice([1, 2, 3, 4]),
        "num_key_value_heads": kv_heads,
        "num_attention_heads": kv_heads * draw.choice([1, 2, 4]),
        "max_position_embeddings": draw.choice([100, 128]),
        "rms_norm_eps": draw.choice([1e-6, 1e-5, 1e-3]),
        "rope_theta": draw.choice([1e4, 5e5, 100.0]),
        "tie_word_embeddings": draw.random() < 0.5,
        "pad_token_id": draw.choice([None, 0, 5]),
        "bos_token_id": 1,
        "eos_token_id": draw.choice([2, [2, 3]]),
    }


def scaling(draw: random.Random) -> Config | None:
    factor = draw.choice([1.5, 4.0, 8.0])
    key = draw.choice(["rope_type", "type"])
    yarn = {
        "factor": factor,
        **some(draw, {"original_max_position_embeddings": 32, "beta_fast": 16.0, "beta_slow": 2.0}),
    }
    yarn |= draw.choice([{}, {"attention_factor": 1.2}, {"mscale": 1.0, "mscale_all_dim": 0.8}, {"truncate": False}])
    llama3 = {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    rest = {"linear": {"factor": factor}, "dynamic": {"factor": factor}, "yarn": yarn, "llama3": llama3}
    kind = draw.choice([None, *rest])
    return None if kind is None else {key: kind, **rest[kind]}


def some(draw: random.Random, entries: Config) -> Config:
    return {key: value for key, value in entries.items() if draw.random() < 0.6}


def head_dim(draw: random.Random, config: Config, choices: list[int]) -> Config:
    """A head size of its own, or the one that follows where that is even."""
    follows = config["hidden_size"] / config["num_attention_heads"]
    return {} if follows % 2 == 0 and draw.random() < 0.4 else {"head_dim": draw.choice(choices)}


def windows(draw: random.Random, config: Config) -> Config:
    return {"sliding_window": draw.choice([None, 1, 5, 16, 500])}


def qwen_windows(draw: random.Random, config: Config) -> Config:
    layers = config["num_hidden_layers"]
    types = [draw.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]
    used = {"use_sliding_window": True, "sliding_window": draw.choice([4, 9])}
    return draw.choice(
        [
            {},
            {"max_window_layers": 1},
            used | {"max_window_layers": draw.randint(0, layers)},
            used | {"layer_types": types},
        ]
    )


def biased(draw: random.Random, config: Config) -> Config:
    return some(draw, {"attention_bias": True})


def scaled(draw: random.Random, config: Config) -> Config:
    found = scaling(draw)
    return {} if found is None else {"rope_scaling": found}


def scaled_by_new_name(draw: random.Random, config: Config) -> Config:
    """Of the two names, Gemma 3's class takes one."""
    found = scaling(draw) or {}
    kind = found.pop("type", None) or found.pop("rope_type", None)
    return {} if kind is None else {"rope_scaling": {"rope_type": kind, **found}}


def heads(draw: random.Random, config: Config) -> Config:
    return head_dim(draw, config, [4, 6, 16, 20, 32])


def sparse(draw: random.Random, config: Config) -> Config:
    count = draw.choice([2, 4, 7])
    chosen = draw.randint(1, min(count, 3))
    return {"num_local_experts": count, "num_experts_per_tok": chosen}


def sparse_or_plain(draw: random.Random, config: Config) -> Config:
    count = draw.choice([2, 4, 7])
    found = {"num_experts": count, "num_experts_per_tok": draw.randint(1, count), "moe_intermediate_size": 40}
    plain = {"decoder_sparse_step": 2, "mlp_only_layers": [0]}
    return found | {"norm_topk_prob": draw.random() < 0.5} | some(draw, plain)


def own_heads(draw: random.Random, config: Config) -> Config:
    return {"head_dim": draw.choice([4, 12, 16, 24])}


def capped(draw: random.Random, config: Config) -> Config:
    types = [draw.choice(["sliding_attention", "full_attention"]) for _ in range(config["num_hidden_layers"])]
    return {"query_pre_attn_scalar": draw.choice([8, 144, 256]), "sliding_window": draw.choice([4, 16, 300])} | some(
        draw, {"final_logit_softcapping": 20.0, "layer_types": types}
    )


def gemma2_caps(draw: random.Random, config: Config) -> Config:
    return some(draw, {"attn_logit_softcapping": draw.choice([None, 30.0]), "final_logit_softcapping": None})


def gemma3_turns(draw: random.Random, config: Config) -> Config:
    return some(draw, {"rope_local_base_freq": 500.0, "sliding_window_pattern": 2})


def phi3_turns(draw: random.Random, config: Config) -> Config:
    size = draw.choice([8, 16, 24])
    part = draw.choice([1.0, 0.75, 0.5])
    pairs = int(size * part) // 2
    found: Config = {"hidden_size": size * config["num_attention_heads"], "partial_rotary_factor": part}
    if draw.random() < 0.5:
        return found
    found["original_max_position_embeddings"] = draw.choice([64, 96])
    short, long = ([draw.uniform(1, 3) for _ in range(pairs)] for _ in range(2))
    kind = draw.choice(["longrope", "su", "yarn"])
    return found | {"rope_scaling": {"type": kind, "short_factor": short, "long_factor": long}}


def feed_forward(draw: random.Random, config: Config) -> Config:
    return some(draw, {"mlp_bias": True, "hidden_act": draw.choice(["gelu", "gelu_new", "relu", "silu"])})


Feature = Callable[[random.Random, Config], Config]
FEATURES: dict[str, list[Feature]] = {
    "llama": [heads, biased, feed_forward, scaled],
    "mistral": [heads, windows, scaled],
    "mixtral": [heads, windows, sparse, scaled],
    "qwen2": [heads, qwen_windows, scaled],
    "qwen3": [own_heads, biased, qwen_windows, scaled],
    "qwen3_moe": [own_heads, biased, sparse_or_plain, scaled],
    "gemma": [own_heads, biased],
    "gemma2": [own_heads, biased, capped, gemma2_caps],
    "gemma3_text": [own_heads, biased, capped, gemma3_turns, scaled_by_new_name],
    "phi3": [windows, phi3_turns],
}


def drawn(family: str, seed: int) -> Config:
    draw = random.Random(f"{family} {seed}")
    config = sizes(draw)
    for feature in FEATURES[family]:
        config |= feature(draw, config)
    return config


def save_model(family: str, config: Config, folder: Path, seed: int) -> Config:
    """A random checkpoint of a config, in some dtype, sharded or not; returns the config as transformers saved it."""
    import torch
    import transformers

    draw = random.Random(seed)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    stem, full = STEMS[family].removesuffix("Text"), config_class(family)(**config)
    if getattr(full, "head_dim", 0) is None:
        full.head_dim = config["hidden_size"] // config["num_attention_heads"]
    model = getattr(transformers, f"{stem}ForCausalLM")(full)
    for parameter in model.parameters():
        parameter.data.normal_(0.0 if parameter.ndim > 1 else 0.5, 0.1 if parameter.ndim > 1 else 0.3)
    dtype = draw.choice([torch.float32, torch.bfloat16, torch.float16])
    model.to(dtype).save_pretrained(folder, max_shard_size=draw.choice(["5GB", "30KB"]))
    saved: Config = json.loads((folder / "config.json").read_text())
    return saved if "head_dim" in config else {key: value for key, value in saved.items() if key != "head_dim"}


def terse(family: str, config: Config) -> Config:
    """Without what goes without saying: every key that has its class's default."""
    defaults = config_class(family)().to_dict()
    needed = {*NEEDED, "tie_word_embeddings", "layer_types"}
    return {key: value for key, value in config.items() if key in needed or value != defaults.get(key, defaults)}


def newer(config: Config) -> Config:
    """As transformers 5 writes it."""
    found = dict(config)
    parameters = dict(found.pop("rope_scaling", None) or {})
    parameters["rope_type"] = parameters.pop("rope_type", None) or parameters.pop("type", "default")
    parameters.pop("type", None)
    parameters["rope_theta"] = found.pop("rope_theta")
    found["dtype"] = found.pop("dtype", None) or found.pop("torch_dtype", None)
    if found["model_type"] == "qwen3_moe":
        found["num_local_experts"] = found.pop("num_experts")
    if found["model_type"] == "phi3":
        parameters["partial_rotary_factor"] = found.pop("partial_rotary_factor", 1.0)
        if parameters["rope_type"] != "default":
            parameters["original_max_position_embeddings"] = found["original_max_position_embeddings"]
    if found["model_type"] == "gemma3_text":
        sliding = {"rope_type": "default", "rope_theta": found.pop("rope_local_base_freq")}
        parameters = {"full_attention": parameters, "sliding_attention": sliding}
    return found | {"rope_parameters": parameters}


STYLES = {"saved": lambda family, config: config, "terse": terse, "newer": lambda family, config: newer(config)}


@pytest.mark.parametrize("seed", range(COUNT))
@pytest.mark.parametrize("family", FEATURES)
def test_a_random_config_gives_the_logits_of_its_original(family: str, seed: int, tmp_path: Path) -> None:
    """The gate compares prefill, chunks, decoding and greedy text with transformers, in fp32."""
    config = drawn(family, seed)
    saved = save_model(family, config, tmp_path / "model", seed)
    style = STYLES[list(STYLES)[seed % len(STYLES)]]
    (tmp_path / "model" / "config.json").write_text(json.dumps(style(family, saved)))
    manifest = export_bundle([tmp_path / "model"], tmp_path / "bundle", route="native")
    parity = manifest.experts[0].weights[0].parity
    assert parity is not None
    assert parity.mean_kl < 1e-8
    assert parity.greedy_equal
    assert describe(saved) == describe(newer(saved)), "both dialects say the same"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_key_means_what_transformers_says(family: str) -> None:
    defaults = config_class(family)().to_dict()
    bare = {key: defaults[key] for key in NEEDED}
    assert describe(bare) == describe(defaults)
