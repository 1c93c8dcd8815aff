"""An original whose weights stay in its files: each module's are widened to fp32 for the time of its forward pass.

A bfloat16 checkpoint takes twice its size in fp32. Here its tensors are mapped, and one module at a time is wide, so
that comparing with a model takes less memory than the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers.modeling_utils import no_init_weights

from octavo.exporters.checkpoint import Checkpoint, StoredTensor

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def streamed(build: Callable[[], Any], checkpoint: Checkpoint) -> Any:
    """The model that `build` makes, with the checkpoint's weights; None where their names are not the model's own."""
    with no_init_weights():  # memory that is never written is never taken
        model = build()
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    stored = {name: tensor for name, tensor in checkpoint.tensors.items() if isinstance(tensor, StoredTensor)}
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    if set(shapes) - set(stored) - tied or any(stored[name].shape != shapes[name] for name in shapes if name in stored):
        return None
    for name in shapes:
        if name in stored:
            parent, _, leaf = name.rpartition(".")
            model.get_submodule(parent)._parameters[leaf] = _constant(_mapped(stored[name]))
    model.tie_weights()
    for module in model.modules():
        if module._parameters:
            module.register_forward_pre_hook(_widen)
            module.register_forward_hook(_narrow)
    return model


def _mapped(tensor: StoredTensor) -> torch.Tensor:
    """A tensor in its file; pages are read when they are needed, and need not stay."""
    dtype = TYPES[tensor.dtype]
    pages = np.memmap(tensor.path, np.uint8, "c", tensor.offset, (tensor.size * dtype.itemsize,))
    return torch.from_numpy(pages).view(dtype).reshape(tensor.shape)


def _constant(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad=False)


def _widen(module: Any, _: Any) -> None:
    module.__dict__["narrow"] = dict(module._parameters)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = _constant(parameter.float())


def _narrow(module: Any, _: Any, output: Any) -> Any:
    module._parameters.update(module.__dict__.pop("narrow"))
    return output
