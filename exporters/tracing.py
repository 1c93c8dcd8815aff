"""Optimum, asked to trace a checkpoint: what it can, and the graph that it makes, its tensors read when needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array, Checkpoint
from octavo.exporters.net import Net
from octavo.exporters.weights import Weight
from octavo.profiles.errors import BundleError

GENERATION = "text-generation-with-past"
CLASSIFICATION = "text-classification"
# Decoders that Optimum 2.1 describes without their positions; with other heads in the cache than they have, or traces
# by an attention that is not the original's (falcon with ALiBi).
POSITIONLESS = ("nemotron", "gemma", "gemma2", "gemma3_text", "gpt_oss")
MISREAD = ("falcon", "phi")
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
INLINE = 1024  # elements; smaller initializers stay in the graph


def traceable(model_type: str, task: str = GENERATION) -> bool:
    """Whether this kind of model can be tried: Optimum knows it, or transformers has a class of it for the task."""
    from transformers.models.auto import modeling_auto as auto

    classes = {
        GENERATION: auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        CLASSIFICATION: auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }
    return model_type in classes[task] or known(model_type, task)


def positions(config: Mapping[str, Any]) -> int | None:
    """How many a model has; None where it says nothing, or has no end."""
    return next((int(value) for key in POSITIONS if (value := config.get(key))), None)


def known(model_type: str, task: str) -> bool:
    """Whether Optimum has a description of this kind of model."""
    import optimum.exporters.onnx.model_configs  # noqa: F401  (registers what it can export)
    from optimum.exporters.tasks import TasksManager

    named = {name.replace("_", "-") for name in TasksManager.get_supported_model_type_for_task(task, exporter="onnx")}
    return model_type.replace("_", "-") in named


def trace(checkpoint: Checkpoint, task: str, scratch: Path, score: Array | None = None) -> ir.Model:
    """Let Optimum trace a checkpoint in fp32 into the folder `scratch`; tensors are read from there when needed.

    A kind of model that Optimum does not know is described to it as a plain decoder or encoder: parity tells whether it
    is one. With `score`, a head [1, hidden_size], its logit stands in the place of the vocabulary's. Raises BundleError
    where it fails.
    """
    folder, kind = checkpoint.folder, checkpoint.model_type
    familiar = known(kind, task) and not (task == GENERATION and kind in MISREAD + POSITIONLESS)
    with _quiet(folder):
        if familiar and score is None:
            from optimum.exporters.onnx import main_export

            main_export(str(folder), scratch, task=task, do_validation=False, local_files_only=True, device="cpu")
        else:
            from optimum.exporters.onnx import onnx_export_from_model

            model = _loaded(folder, task, score)
            described = None if familiar else {"model": _described(model, task)}
            options = {"task": task, "do_validation": False, "custom_onnx_configs": described}
            onnx_export_from_model(model, scratch, **options)
        return ir.load(scratch / "model.onnx")


def _loaded(folder: Path, task: str, score: Array | None) -> Any:
    """The original model; with a score's head in the place of its vocabulary's."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    loader = AutoModelForCausalLM if task == GENERATION else AutoModelForSequenceClassification
    options = {"dtype": torch.float32, "attn_implementation": "eager", "local_files_only": True}
    model = loader.from_pretrained(folder, **options)
    model.config.use_cache = task == GENERATION
    if score is not None:
        head = torch.nn.Linear(score.shape[1], 1, bias=False)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(score.astype(np.float32)))
        model.set_output_embeddings(head)
    return model.eval()


def _with_kv_heads(config: Any) -> Any:
    """A config that says how many heads the cache has in the word that most use."""
    if getattr(config, "num_key_value_heads", None) is None:
        repeated = getattr(config, "new_decoder_architecture", False)  # Falcon's, before they are cached
        shared = getattr(config, "multi_query", False) and not repeated
        config.num_key_value_heads = 1 if shared else config.num_attention_heads
    return config


def _positioned(model_type: str) -> Any:
    """Optimum's own description of a kind of decoder, and its positions."""
    from optimum.exporters.onnx.config import TextDecoderWithPositionIdsOnnxConfig
    from optimum.exporters.tasks import TasksManager

    found = TasksManager.get_exporter_config_constructor(
        exporter="onnx", model_type=model_type, task="text-generation", library_name="transformers"
    )
    return type("Positioned", (TextDecoderWithPositionIdsOnnxConfig, found.func), {})


def _described(model: Any, task: str) -> Any:
    """A description for Optimum of a model that it does not know: as Llama's, or as BERT's."""
    from optimum.exporters.onnx import model_configs

    if task == GENERATION:
        config, kind = _with_kv_heads(model.config), model_configs.LlamaOnnxConfig
        if config.model_type in POSITIONLESS:
            kind = _positioned(config.model_type)
        return kind(config, task="text-generation", use_past=True, use_past_in_inputs=True)
    typed = (getattr(model.config, "type_vocab_size", 0) or 0) > 1
    kind = model_configs.BertOnnxConfig if typed else model_configs.DistilBertOnnxConfig
    return kind(model.config, task=task)


@contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """What the libraries tell each other is kept from the user, for parity is what tells; their errors become ours."""
    from transformers.utils import logging

    told = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:  # of Optimum, transformers, torch or onnx: anything
        reason = next(iter(str(error).strip().splitlines()), "")
        raise BundleError(f"{folder}: Optimum cannot trace it: {type(error).__name__}: {reason}") from error
    finally:
        logging.set_verbosity(told)


@dataclass(frozen=True, slots=True)
class TracedTensor:
    """An initializer of a traced graph."""

    tensor: ir.TensorProtocol
    path: Path
    dtype: str = "traced"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.tensor.shape.numpy())

    @property
    def size(self) -> int:
        return int(self.tensor.size)

    def read(self) -> Array:
        return np.asarray(self.tensor.numpy())

    def head(self) -> bytes:
        return self.read().ravel()[:1024].tobytes()


def traced_tensors(model: ir.Model, origin: Path) -> dict[str, TracedTensor]:
    """The large initializers of a traced graph, by name; `origin` is a file of the checkpoint that was traced."""
    return {
        name: TracedTensor(value.const_value, origin)
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and _size(value) >= INLINE
    }


def take_over(graph: ir.Graph, net: Net) -> None:
    """Move the traced nodes and initializers into a graph of ours; large initializers become weights."""
    initializers = list(graph.initializers.values())
    nodes = list(graph)
    graph.outputs.clear()
    graph.remove(nodes)
    net.adopt(nodes)
    for value in initializers:
        net.adopt_initializer(value, large=_weight(value) if _size(value) >= INLINE else None)


def _size(value: ir.Value) -> int:
    assert value.const_value is not None
    return int(value.const_value.size)


def _weight(value: ir.Value) -> Weight:
    tensor = value.const_value
    assert tensor is not None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    return Weight(str(value.name), tensor.dtype, shape, (str(value.name),), _as_stored)


def _as_stored(stored: Array) -> Any:
    return stored
