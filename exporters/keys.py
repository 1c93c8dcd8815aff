"""A config that remembers what was read of it, so that no key which might change the numbers goes unnoticed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from octavo.profiles.errors import BundleError

# Keys that no forward pass of a decoder depends on: training, generation, bookkeeping.
NEUTRAL = frozenset(
    """architectures model_type torch_dtype dtype transformers_version use_cache initializer_range initializer_factor
    attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop bos_token_id eos_token_id pad_token_id
    sep_token_id cls_token_id mask_token_id unk_token_id decoder_start_token_id pretraining_tp id2label label2id
    num_labels problem_type finetuning_task task_specific_params tokenizer_class prefix name_or_path auto_map
    output_attentions output_hidden_states return_dict router_aux_loss_coef output_router_logits
    chunk_size_feed_forward classifier_dropout summary_type gradient_checkpointing cache_implementation
    max_length min_length do_sample temperature top_k top_p typical_p repetition_penalty length_penalty
    num_beams num_beam_groups diversity_penalty early_stopping no_repeat_ngram_size num_return_sequences
    encoder_no_repeat_ngram_size bad_words_ids begin_suppress_tokens suppress_tokens forced_bos_token_id
    forced_eos_token_id exponential_decay_length_penalty remove_invalid_values output_scores
    return_dict_in_generate tf_legacy_loss use_bfloat16 torchscript unsloth_version unsloth_fixed
    transformers.js_config is_decoder attn_implementation max_sequence_length model_max_length
    tokenizer_model_max_length is_llama_config max_new_tokens penalty_alpha neftune_noise_alpha""".split()  # noqa: SIM905
)


class Keys:
    """A config that remembers what was read of it."""

    def __init__(self, config: Mapping[str, Any]):
        self._config = config
        self._read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self._read.add(key)
        value = self._config.get(key)
        return default if value is None else value

    def has(self, key: str) -> bool:
        """Whether the config speaks of a key, be it to say null."""
        return key in self._config

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise BundleError(f"config.json: {key} is missing")
        return value

    def count(self, key: str, default: Any = None) -> int:
        value = self.need(key) if default is None else self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BundleError(f"config.json: {key} must be a positive integer, got {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise BundleError(f"config.json: {key} must be a positive number, got {value!r}")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.get(key, default)
        if value not in (True, False):
            raise BundleError(f"config.json: {key} must be true or false, got {value!r}")
        return bool(value)

    def refuse(self, key: str, allowed: Any) -> None:
        """Read a key that only one value of is supported."""
        value = self.get(key, allowed)
        if value != allowed:
            raise BundleError(f"config.json: {key}={value!r} is not supported by the native route, only {allowed!r} is")

    def refuse_unread(self) -> None:
        unread = set(self._config) - self._read - NEUTRAL
        strange = sorted(
            key for key in unread if not key.startswith("_") and self._config[key] not in (None, False, {}, [])
        )
        if strange:
            names = ", ".join(f"{key}={str(self._config[key])[:40]}" for key in strange)
            raise BundleError(f"config.json: {names}: not understood by the native route, so the graph might be wrong")
