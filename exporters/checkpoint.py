"""A Hugging Face checkpoint on disk: its config, and its safetensors read one tensor at a time."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from octavo.profiles.errors import BundleError

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
WHOLE: dict[str, np.dtype[Any]] = {  # of buffers that older versions of transformers saved; never of weights
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
LARGEST_HEADER = 100 * 2**20  # bytes; the limit of the safetensors library
INDEX_NAME = "model.safetensors.index.json"


class Tensor(Protocol):
    """A tensor that can be read when it is needed."""

    @property
    def path(self) -> Path:
        """The file that it comes from."""
        ...

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def size(self) -> int:
        """Elements."""
        ...

    def read(self) -> Array:
        """The tensor, read now; nothing is kept."""
        ...

    def head(self) -> bytes:
        """The first few bytes: enough to see that two tensors differ."""
        ...


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor's bytes lie."""

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def read(self) -> Array:
        """In its stored dtype."""
        if self.dtype not in DTYPES:
            raise BundleError(f"{self.path}: a tensor of {self.shape} is {self.dtype}; weights are {', '.join(DTYPES)}")
        array = np.fromfile(self.path, DTYPES[self.dtype], self.size, offset=self.offset)
        return array.reshape(self.shape)

    def head(self) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(min(4096, self.size * _itemsize(self.dtype)))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with `config.json` and safetensors, sharded or not. Holds names and places, no weights.

    `base` is the checkpoint that a merged adapter belongs to.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    base: Path | None = None

    @property
    def parameters(self) -> int:
        return sum(tensor.size for tensor in self.tensors.values())

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", "unknown"))

    def read(self, name: str) -> Array:
        return self.tensors[name].read()


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the config and the safetensors headers. Raises BundleError naming the file that is missing or wrong."""
    config = read_json(folder / "config.json")
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        tensors |= stored_tensors(path)
    return Checkpoint(folder, config, tensors)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises BundleError naming the file."""
    if not path.is_file():
        raise BundleError(
            f"{path}: no such file; a checkpoint is a Hugging Face folder with config.json and safetensors"
        )
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path}: a JSON object is expected, got {type(content).__name__}")
    return content


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_NAME).is_file():
        names = sorted(set(read_json(folder / INDEX_NAME).get("weight_map", {}).values()))
        return [_shard(folder, str(name)) for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    hint = f"; {pickles[0]} is a pickle, which is never loaded: save it with safe_serialization=True" if pickles else ""
    raise BundleError(f"{folder}: no model.safetensors and no {INDEX_NAME}{hint}")


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name or not (folder / name).is_file():
        raise BundleError(f"{folder / INDEX_NAME}: shard {name!r} is not a file in the checkpoint's folder")
    return folder / name


def stored_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file. Raises BundleError when its header is damaged or lies."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= min(LARGEST_HEADER, size - 8):
            raise BundleError(f"{path}: not a safetensors file (header of {length} bytes in a file of {size})")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            return {name: _stored_tensor(path, 8 + length, size, name, entry) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path}: damaged safetensors header: {error!r}") from None


def _stored_tensor(path: Path, data: int, size: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    dtype, shape, (begin, end) = entry["dtype"], tuple(map(int, entry["shape"])), entry["data_offsets"]
    if dtype not in DTYPES | WHOLE:
        raise BundleError(f"{path}: {name} is {dtype}; floating-point checkpoints are read ({', '.join(DTYPES)})")
    if end - begin != math.prod(shape) * _itemsize(dtype) or begin < 0 or data + end > size:
        raise BundleError(f"{path}: {name} lies outside the file or its size is not its shape's: the file is damaged")
    return StoredTensor(path, data + begin, dtype, shape)


def _itemsize(dtype: str) -> int:
    return (DTYPES | WHOLE)[dtype].itemsize
