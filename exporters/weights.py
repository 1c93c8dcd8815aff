"""Weights of a graph: how each is made from a checkpoint, where it lies in a file, and how it is written there."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir

from octavo.exporters.checkpoint import Array, Checkpoint
from octavo.profiles.errors import BundleError

PAGE = 4096  # bytes; large tensors start on a page, so that they can be mapped
CACHE_LINE = 64
STRIP = 64  # rows that are converted and turned at once: they fit into a core's cache
APART = 16  # elements between these rows: at a distance of a power of two, they would all want the same cache lines


@dataclass(frozen=True, slots=True)
class Weight:
    """One initializer: its form, the checkpoint tensors it is made of, and how.

    `make` takes the source tensors in their stored dtypes and returns an array that has `shape`; it is converted
    to `dtype` when written. Where `make` returns several arrays, this weight is the one at `part`.
    """

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    make: Callable[..., Any]
    part: int | None = None

    @property
    def recipe(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        """Weights that follow each other with one recipe are made once."""
        return self.make, self.sources

    @property
    def bytes(self) -> int:
        return math.ceil(math.prod(self.shape) * float(self.dtype.itemsize))

    def finished(self, made: Any, checkpoint: Checkpoint) -> Array:
        """The array to store, out of what `make` returned."""
        array = made if self.part is None else made[self.part]
        if array.shape != self.shape:
            raise BundleError(
                f"{checkpoint.folder}: {self.sources[0]} makes {array.shape}, the config says {self.shape}"
            )
        with np.errstate(over="ignore"):
            plain = _plain(array, self.dtype.numpy())
        if self.dtype == ir.DataType.FLOAT16 and np.isinf(plain).any():
            raise BundleError(f"{checkpoint.folder}: {self.sources[0]} has values beyond fp16; choose bf16 or fp32")
        return plain


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight lies: an external-data location (a file name) and the offset in it, in bytes."""

    location: str
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The place of every weight, and the size in bytes of every file that they fill."""

    places: Mapping[str, Place]
    sizes: Mapping[str, int]


def lay_out(weights: Sequence[Weight], location_of: Callable[[Weight], str]) -> Layout:
    """Give each weight a place in the file that `location_of` names, in order and aligned."""
    places: dict[str, Place] = {}
    sizes: dict[str, int] = {}
    for weight in weights:
        location = location_of(weight)
        align = PAGE if weight.bytes >= PAGE else CACHE_LINE
        offset = -(-sizes.get(location, 0) // align) * align
        places[weight.name] = Place(location, offset)
        sizes[location] = offset + weight.bytes
    return Layout(places, sizes)


def write_weights(path: Path, weights: Iterable[Weight], layout: Layout, location: str, checkpoint: Checkpoint) -> str:
    """Stream the weights of one location to a file; returns the file's SHA-256, in hexadecimal.

    While one weight is made, another thread hashes and writes the one before it: these two, and the sources of the
    first, are all that is in memory.
    """
    chosen = (weight for weight in weights if layout.places[weight.name].location == location)
    with path.open("xb") as stream, ThreadPoolExecutor(max_workers=1) as writer:
        digest, before = hashlib.sha256(), None
        for (make, sources), group in groupby(chosen, key=lambda weight: weight.recipe):
            made = make(*(checkpoint.read(source) for source in sources))
            for weight in group:
                finished = weight.finished(made, checkpoint)
                if before is not None:
                    before.result()
                before = writer.submit(_append, stream, digest, layout.places[weight.name].offset, finished)
            del made, finished
        if before is not None:
            before.result()
    return digest.hexdigest()


def _plain(array: Array, dtype: np.dtype[Any]) -> Array:
    """A contiguous array of a dtype; a matrix that is turned is so strip by strip, twice as fast as all at once."""
    if array.ndim != 2 or array.flags.c_contiguous or not array.flags.f_contiguous:
        return np.ascontiguousarray(array.astype(dtype, copy=False))
    turned, stored = np.empty(array.shape, dtype), array.T
    strip = np.empty((STRIP, stored.shape[1] + APART), dtype)[:, : stored.shape[1]]
    for start in range(0, len(stored), STRIP):
        rows = stored[start : start + STRIP]
        strip[: len(rows)] = rows
        turned[:, start : start + len(rows)] = strip[: len(rows)].T
    return turned


def _append(stream: BinaryIO, digest: hashlib._Hash, offset: int, array: Array) -> None:
    for data in (b"\0" * (offset - stream.tell()), array.reshape(-1).view(np.uint8).data):
        stream.write(data)
        digest.update(data)


def external(weight: Weight, place: Place) -> ir.ExternalTensor:
    """What the graph says of a weight that lies in a file."""
    shape = ir.Shape(weight.shape)
    return ir.ExternalTensor(place.location, place.offset, weight.bytes, weight.dtype, shape=shape, name=weight.name)
