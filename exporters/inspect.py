"""What is in a bundle, as plain data: verified, summed up, ready to be printed or dumped as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octavo.profiles.manifest import ExpertEntry, GraphEntry, Manifest, ValueEntry, Weights, verify_bundle


def report(bundle: Path, *, hashes: bool = True) -> dict[str, Any]:
    """Verify a bundle and describe it: sizes in bytes, graphs, experts, parity. Raises BundleError."""
    manifest = verify_bundle(bundle, hashes=hashes)
    return {
        "name": manifest.name,
        "verified": manifest.verified,
        "bytes": manifest.total_bytes(),
        "shared_bytes": sum(file.size for file in manifest.files if file.path.startswith("shared/")),
        "bytes_if_not_shared": _unshared(manifest),
        "graphs": [_graph(graph) for graph in manifest.graphs],
        "experts": [_model(manifest, expert) for expert in manifest.experts],
        "value": _model(manifest, manifest.value) if manifest.value else None,
        "defaults": manifest.defaults.model_dump(),
        "created_by": manifest.created_by,
    }


def _graph(graph: GraphEntry) -> dict[str, Any]:
    kept = (
        "name",
        "role",
        "lowering",
        "precision",
        "route",
        "opset",
        "providers",
        "checked",
        "build",
        "adapters",
        "sha256",
    )
    kv = graph.kv
    return graph.model_dump(include=set(kept)) | {
        "kv_dtype": kv.dtype if kv else None,
        "kv_scales": kv.scales if kv else None,
        "kv_bytes_per_token": kv.bytes_per_token if kv else None,
        "max_length": kv.max_length if kv else None,
        "outputs": [entry.name for entry in graph.outputs if not entry.name.startswith("present.")],
    }


def _model(manifest: Manifest, model: ExpertEntry | ValueEntry) -> dict[str, Any]:
    return {
        "name": model.name,
        "model_type": model.model_type,
        "parameters": model.parameters,
        "bytes": _bytes(manifest, model.weights),
        "source": model.source,
        "parity": {w.graph: w.parity.model_dump() if w.parity else None for w in model.weights},
    }


def _bytes(manifest: Manifest, weights: list[Weights]) -> int:
    """Of all files that a model's graphs read, shared ones included."""
    paths = {path for entry in weights for path in (entry.model, *entry.locations.values())}
    return sum(file.size for file in manifest.files if file.path in paths)


def _unshared(manifest: Manifest) -> int:
    """What the models' files would take if every model had its own."""
    models: list[ExpertEntry | ValueEntry] = [*manifest.experts, *([manifest.value] if manifest.value else [])]
    return sum(_bytes(manifest, model.weights) for model in models)
