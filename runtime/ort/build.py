"""Building the engines of a bundle ahead of its first use, on the GPU that will run them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from octavo.profiles.errors import BundleError, MachineError
from octavo.profiles.manifest import Manifest, Weights
from octavo.runtime.ort.engines import Engines, ahead
from octavo.runtime.ort.providers import TENSORRT, Probe, probe
from octavo.runtime.ort.session import Device, open_model


@dataclass(frozen=True, slots=True)
class Built:
    """One model's engine: seconds that it took, and the bytes of what is kept in `folder`."""

    model: str
    graph: str
    seconds: float
    bytes: int
    folder: Path

    def as_dict(self) -> dict[str, str | float]:
        return asdict(self) | {"folder": str(self.folder)}


def check_tensorrt(try_provider: Callable[[str], Probe] = probe) -> None:
    """Raise MachineError, saying what is missing, where TensorRT does not work."""
    found = try_provider(TENSORRT)
    if not found.works:
        raise MachineError(f"--build-engines: {found.detail}")


def build_engines(bundle: Path, manifest: Manifest, device: int = 0, *, stripped: bool = False) -> Iterator[Built]:
    """Build the engine of every model of the bundle that has a graph for TensorRT, one after another.

    An engine that is there already is opened, not built again. Raises BundleError where no graph is for TensorRT,
    MachineError where TensorRT does not work, or leaves any node of a graph to another provider.
    """
    models = list(for_tensorrt(manifest))
    if not models:
        raise BundleError(f"{bundle}: no graph is for TensorRT; export with --target tensorrt")
    check_tensorrt()
    for name, weights in models:
        graph = manifest.graph(weights.graph)
        engines = ahead(manifest, graph, weights, device, stripped=stripped)
        start = time.perf_counter()
        open_model(bundle, manifest, name, [weights], TENSORRT, Device("tensorrt", device), 1, built=engines)
        yield Built(name, graph.name, time.perf_counter() - start, size(engines), engines.folder)


def for_tensorrt(manifest: Manifest) -> Iterator[tuple[str, Weights]]:
    """Each model that TensorRT can run, once: the adapters of one base are one."""
    value = [(manifest.value.name, manifest.value.weights)] if manifest.value else []
    seen = set()
    for name, entries in [*((expert.name, expert.weights) for expert in manifest.experts), *value]:
        for weights in entries:
            if manifest.graph(weights.graph).lowering == "tensorrt" and weights.model not in seen:
                seen.add(weights.model)
                yield name, weights


def size(engines: Engines) -> int:
    """Bytes of all that is kept of a model's engine."""
    return sum(path.stat().st_size for path in engines.folder.rglob("*") if path.is_file())
