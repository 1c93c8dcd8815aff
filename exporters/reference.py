"""The original model, run by torch and transformers in fp32 on the CPU: what an export is compared with."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from octavo.exporters.checkpoint import Array, Checkpoint, open_checkpoint, read_json
from octavo.exporters.dialect import older
from octavo.exporters.longrope import stretched
from octavo.exporters.player import SMALL
from octavo.exporters.spec import Head
from octavo.exporters.streamed import streamed
from octavo.exporters.wrapper import is_wrapper, language_config, language_model
from octavo.profiles.errors import BundleError


class Reference:
    """An original model in memory."""

    def __init__(self, model: Any, head: Head):
        self._model = model.eval()
        self._head = head

    @property
    def parameters(self) -> int:
        return int(self._model.num_parameters())

    def close(self) -> None:
        """Let go of the model's memory, and let the allocator give it back."""
        self._model = None
        gc.collect()
        with suppress(OSError, AttributeError):  # glibc's; other allocators have no such call
            ctypes.CDLL(None).malloc_trim(0)

    def outputs(self, ids: Array) -> Array:
        """Logits [sequence, vocab], or the value model's logit [sequence, 1], of every position of one sequence."""
        with torch.no_grad():
            batch = torch.from_numpy(np.ascontiguousarray(ids))[None]
            if self._head == "logits":
                return np.asarray(self._model(batch, use_cache=False).logits[0].float().numpy())
            trunk = self._trunk(batch, use_cache=False).last_hidden_state
            scores = np.asarray(self._model.score(trunk)[0].float().numpy())
            return _one(scores)

    def score(self, feeds: dict[str, Array]) -> Array:
        """A classifier's logit of one sequence read whole, [1]; of two labels, the log-odds of label 1."""
        with torch.no_grad():
            batch = {name: torch.from_numpy(array)[None] for name, array in feeds.items()}
            labels = self._model(**batch).logits[0].float().numpy()
            return _one(np.asarray(labels))

    def hidden(self, ids: Array) -> Array:
        """The last hidden state, normed, of every position of one sequence: [sequence, hidden_size]."""
        with torch.no_grad():
            batch = torch.from_numpy(np.ascontiguousarray(ids))[None]
            return np.asarray(self._trunk(batch, use_cache=False).last_hidden_state[0].float().numpy())

    @property
    def _trunk(self) -> Any:
        """The model without its head; where its class names the trunk otherwise than it is, as Gemma 3's does, too."""
        base = self._model.base_model
        return base if base is not self._model else self._model.model


def _one(labels: Array) -> Array:
    """The logit of one label; of two, the log-odds of label 1: [..., 1]."""
    return labels if labels.shape[-1] == 1 else labels[..., 1:] - labels[..., :1]


def _config(folder: Path, max_length: int | None) -> Any:
    """A language model's config; where transformers 5 wrote it, as transformers 4 has to read it.

    Of a LongRoPE, with the table that a context of `max_length` takes.
    """
    stored = read_json(folder / "config.json")
    translated = stretched(older(language_config(stored)), max_length)
    if translated == stored:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    else:
        scaling = translated.pop("rope_scaling", None)
        config = AutoConfig.for_model(**translated)
        config.rope_scaling = scaling  # set here, since the constructors refuse factors that the forward pass takes
    if getattr(config, "head_dim", 0) is None:
        config.head_dim = config.hidden_size // config.num_attention_heads  # some scalings multiply by it unasked
    return config


def _unwrapped(build: Callable[[], Any], inner: Checkpoint) -> Any:
    """The language model out of a multimodal checkpoint: its own class, filled tensor by tensor."""
    model = build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(inner.read(name).astype(np.float32)))
    return model


def _load(folder: Path, head: Head, *, max_length: int | None, stream: bool) -> Any:
    loader = AutoModelForCausalLM if head == "logits" else AutoModelForSequenceClassification
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    try:
        config, wrapped = _config(folder, max_length), is_wrapper(read_json(folder / "config.json"))
        inner = language_model(open_checkpoint(folder))
        build = partial(loader.from_config, config, **options)
        if stream and inner.parameters >= SMALL and (model := streamed(build, inner)) is not None:
            return model
        if wrapped:
            return _unwrapped(build, inner)
        return loader.from_pretrained(folder, config=config, use_safetensors=True, local_files_only=True, **options)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BundleError(f"{folder}: transformers cannot load it to compare with: {reason[0]}") from error


def _merged(model: Any, adapter: Path | None) -> Any:
    if adapter is None:
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


@contextmanager
def open_reference(
    folder: Path, head: Head, base: Path | None = None, max_length: int | None = None, *, stream: bool = False
) -> Iterator[Reference]:
    """Load the original in fp32, for as long as the block lasts; with `base`, `folder` is a PEFT adapter of it.

    `max_length` is the context that it was exported for, where one was asked for; `stream` leaves the weights of a
    large one in their files, for models none of whose modules reads the weights of another.

    Raises BundleError when transformers cannot load it.
    """
    disable_progress_bar()  # of loading shards; an export tells its own progress
    threads = torch.get_num_threads()
    gc.freeze()  # what is there now stays: collecting the model's garbage need not look at all that was imported
    try:
        model = _load(base or folder, head, max_length=max_length, stream=stream and base is None)
        reference = Reference(_merged(model, folder if base else None), head)
        del model
        if reference.parameters < SMALL:
            torch.set_num_threads(1)
        try:
            yield reference
        finally:
            reference.close()
    finally:
        torch.set_num_threads(threads)
        gc.unfreeze()
