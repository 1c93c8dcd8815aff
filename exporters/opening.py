"""Opening a model of a bundle, whether its weights lie beside the graph or are shared with other models."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import onnxruntime as ort

from octavo.profiles.manifest import Weights


def open_session(
    bundle: Path, weights: Weights, options: ort.SessionOptions, providers: list[Any]
) -> ort.InferenceSession:
    """Open a model; shared weight files are mapped and given to ONNX Runtime by name."""
    model = bundle / weights.model
    files = {location: bundle / path for location, path in weights.locations.items()}
    if all(path == model.parent / location for location, path in files.items()):
        return ort.InferenceSession(model, options, providers=providers)
    maps = [_mapped(path) for path in files.values()]
    options.add_external_initializers_from_files_in_memory(list(files), maps, [len(data) for data in maps])
    return ort.InferenceSession(model.read_bytes(), options, providers=providers)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
