"""Where the engines that TensorRT builds for a model are kept, and how they are found again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import onnxruntime as ort

from octavo.profiles.manifest import GraphEntry, Manifest, Weights
from octavo.runtime.ort.gpu import device_name, tensorrt_version

CONTEXT = "model_ctx.onnx"  # what ONNX Runtime opens instead of the model: one node, which names the engine beside it
STRIPPED = "*.stripped.engine"


@dataclass(frozen=True, slots=True)
class Engines:
    """Where a model's engine is kept, and the provider options that build or use it there.

    `model` is the EP-context model to open in place of the bundle's, where engines were built ahead.
    """

    folder: Path
    options: dict[str, str]
    model: Path | None = None


def find_engines(manifest: Manifest, graph: GraphEntry, weights: Weights, device: int) -> Engines:
    """The engine that was built ahead, whole or stripped; else the place for one that is built at its first use."""
    whole = _kept(manifest, graph, weights, device, graph.trt_context_options)
    if (whole.folder / CONTEXT).is_file():
        return Engines(whole.folder, graph.trt_options | graph.trt_profiles, whole.folder / CONTEXT)
    stripped = _kept(manifest, graph, weights, device, graph.trt_refit_options)
    if any(stripped.folder.glob(STRIPPED)):
        return stripped
    return _kept(manifest, graph, weights, device, graph.trt_options)


def ahead(manifest: Manifest, graph: GraphEntry, weights: Weights, device: int, *, stripped: bool) -> Engines:
    """Where and how an engine is built ahead: whole with an EP-context model, or without its weights.

    Stripped engines too are named by their weights: ONNX Runtime builds them with TensorRT's REFIT_IDENTICAL, which
    allows refitting with the very weights that they were built with. Another expert's would give wrong numbers.
    """
    if stripped:
        return _kept(manifest, graph, weights, device, graph.trt_refit_options)
    kept = _kept(manifest, graph, weights, device, graph.trt_context_options)
    # ONNX Runtime wants the engine's folder relative to the context model's: here, the same.
    place = {"trt_ep_context_file_path": str(kept.folder / CONTEXT), "trt_engine_cache_path": ""}
    return Engines(kept.folder, kept.options | place)


def _kept(manifest: Manifest, graph: GraphEntry, weights: Weights, device: int, chosen: dict[str, str]) -> Engines:
    """The folder's name is the hash of all that an engine depends on."""
    machine = [ort.__version__, tensorrt_version(), device_name(device)]
    options = chosen | graph.trt_profiles
    hashes = {entry.path: entry.sha256 for entry in manifest.files}
    files = [hashes[path] for path in sorted({weights.model, *weights.locations.values()})]
    folder = _home() / _hash([machine, graph.sha256, files, sorted(options.items())])
    timings = _home() / "timings" / _hash(machine)
    place = {"trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(timings)}
    return Engines(folder, options | place)


def make_room(engines: Engines) -> None:
    """Make the folders that TensorRT writes into."""
    engines.folder.mkdir(parents=True, exist_ok=True)
    if timings := engines.options.get("trt_timing_cache_path"):
        Path(timings).mkdir(parents=True, exist_ok=True)


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo" / "engines"


def _hash(parts: object) -> str:
    return blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()
