"""LoRA adapters of PEFT: read, merged into their base, or stacked so that every row of a batch picks its own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octavo.exporters.checkpoint import Array, Checkpoint, Tensor, open_checkpoint, read_json, stored_tensors
from octavo.profiles.errors import BundleError

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
NOT_SUPPORTED = (
    *("use_dora", "modules_to_save", "fan_in_fan_out", "trainable_token_indices", "lora_bias"),
    *("alora_invocation_tokens", "target_parameters", "layer_replication", "use_qalora", "use_bdlora"),
    *("monteclora_config", "velora_config", "kasa_config", "arrow_config", "megatron_config"),
)
PLAIN: dict[str, tuple[Any, ...]] = {  # of these keys, what is allowed
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),  # others change the base as well
}


@dataclass(frozen=True, slots=True)
class Delta:
    """What an adapter adds to one matrix: scale * B @ A, with A [rank, inputs] and B [outputs, rank]."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def matrix(self) -> Array:
        """[outputs, inputs] in float32."""
        return np.asarray(self.b.read().astype(np.float32) @ self.a.read().astype(np.float32)) * np.float32(self.scale)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A PEFT folder: its base, and a delta for each module (named as in the base's checkpoint, without `.weight`).

    Where it is `whole`, the folder holds a full checkpoint, of which the deltas are the difference to the base.
    """

    name: str
    folder: Path
    base: Path
    deltas: dict[str, Delta]
    whole: bool = False

    @property
    def parameters(self) -> int:
        return sum(delta.a.size + delta.b.size for delta in self.deltas.values())


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """A base's tensor plus a delta, made in float32 when it is read."""

    base: Tensor
    delta: Delta

    @property
    def path(self) -> Path:
        return self.delta.a.path

    @property
    def dtype(self) -> str:
        return "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def read(self) -> Array:
        return np.asarray(self.base.read().astype(np.float32) + self.delta.matrix())

    def head(self) -> bytes:
        return self.read().tobytes()[:4096]


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file()


def open_adapter(folder: Path, name: str, base: Path | None = None) -> Adapter:
    """Read a PEFT folder's config and header. Raises BundleError for what is not plain LoRA."""
    config = read_json(folder / CONFIG_NAME)
    unknown = [key for key in NOT_SUPPORTED if config.get(key)]
    unknown += [key for key, plain in PLAIN.items() if config.get(key, plain[0]) not in plain]
    if unknown:
        what = f"{CONFIG_NAME}: {unknown[0]}={config[unknown[0]]!r}"
        raise BundleError(f"{folder}: {what} is not supported; plain LoRA without biases is: merge the adapter first")
    if not (folder / WEIGHTS_NAME).is_file():
        raise BundleError(f"{folder}: no {WEIGHTS_NAME}; adapters are read from safetensors, never from a pickle")
    found = base or _base(folder, config)
    return Adapter(name, folder, found, _deltas(folder, config, found))


def merged(adapter: Adapter) -> Checkpoint:
    """The base with the adapter added: a checkpoint like any other; tensors not adapted stay the base's own."""
    base = open_checkpoint(adapter.base)
    tensors: dict[str, Tensor] = dict(base.tensors)
    for module, delta in adapter.deltas.items():
        _check(adapter, base, module, delta)
        tensors[f"{module}.weight"] = MergedTensor(base.tensors[f"{module}.weight"], delta)
    return replace(base, folder=adapter.folder, tensors=tensors, base=adapter.base)


def stacked(adapters: Sequence[Adapter]) -> Checkpoint:
    """The base and all adapters as one checkpoint; adapter i's tensors are named as `stacked_name` says."""
    base = open_checkpoint(adapters[0].base)
    tensors: dict[str, Tensor] = dict(base.tensors)
    for index, adapter in enumerate(adapters):
        for module, delta in adapter.deltas.items():
            _check(adapter, base, module, delta)
            tensors[stacked_name(module, index, "a")] = delta.a
            tensors[stacked_name(module, index, "b")] = delta.b
    return replace(base, tensors=tensors)


def stacked_name(module: str, index: int, part: str) -> str:
    return f"{module}.lora_{part}.{index}"


def _check(adapter: Adapter, base: Checkpoint, module: str, delta: Delta) -> None:
    weight = base.tensors.get(f"{module}.weight")
    if weight is None or weight.shape != (delta.b.shape[0], delta.a.shape[1]) or delta.b.shape[1] != delta.rank:
        raise BundleError(f"{adapter.folder}: the adapter's {module} does not fit the base {adapter.base}")


def _base(folder: Path, config: dict[str, Any]) -> Path:
    """The base checkpoint that an adapter names, as a path from anywhere, from its folder or from beside it."""
    named = str(config.get("base_model_name_or_path") or "")
    for candidate in (Path(named), folder / named, folder.parent / named, folder.parent / Path(named).name):
        if named and (candidate / "config.json").is_file():
            return candidate
    raise BundleError(f"{folder}: its base {named!r} is not a folder here; name it with base")


def _deltas(folder: Path, config: dict[str, Any], base: Path) -> dict[str, Delta]:
    tensors = _changed(stored_tensors(folder / WEIGHTS_NAME), base)
    modules = sorted({name.split(".lora_")[0] for name in tensors})
    wanted = {f"{module}.lora_{part}.weight" for module in modules for part in "AB"}
    if set(tensors) != wanted:
        strange = sorted(set(tensors) ^ wanted)[0]
        raise BundleError(f"{folder}: {strange} is not part of plain LoRA layers: merge the adapter first")
    return {
        module.removeprefix(PREFIX): Delta(
            tensors[f"{module}.lora_A.weight"],
            tensors[f"{module}.lora_B.weight"],
            _scale(config, module, tensors[f"{module}.lora_A.weight"].shape[0]),
        )
        for module in modules
    }


def _changed(tensors: dict[str, Tensor], base: Path) -> dict[str, Tensor]:
    """Without the copies of the base's own tensors that PEFT saves of a head or an embedding that is adapted."""
    copies = [name for name in tensors if name.endswith(".base_layer.weight")]
    if not copies:
        return tensors
    stored = open_checkpoint(base).tensors
    same = [name for name in copies if _same(tensors[name], stored.get(_module(name, ".base_layer.") + ".weight"))]
    return {name: tensor for name, tensor in tensors.items() if name not in same}


def _same(tensor: Tensor, other: Tensor | None) -> bool:
    if other is None or tensor.shape != other.shape:
        return False
    return bool(np.array_equal(tensor.read().astype(np.float32), other.read().astype(np.float32)))


def _module(name: str, ending: str) -> str:
    return name.split(ending)[0].removeprefix(PREFIX)


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """As PEFT finds it: a pattern is a regular expression that the end of the module's name matches, after a dot."""
    patterns, plain = config.get("alpha_pattern") or {}, module.removeprefix(PREFIX)
    matching = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", plain))
    alpha = next(matching, config.get("lora_alpha", 8))
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)
