"""Whether TensorRT takes a graph, shown by building it: TensorRT-RTX's parser and builder need no GPU.

The wheels of the extra `rtx` bring NVIDIA's libraries and their Python bindings. They run in a process of their own: a
graph that they dislike may take the process with it. A build shows that operators, shapes and types are taken; neither
speed nor numbers. The engine is thrown away: TensorRT itself builds one on the GPU that will run it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from octavo.exporters.rtx_worker import BINDINGS, LIBRARIES, Request
from octavo.profiles.errors import GateError, MachineError
from octavo.profiles.manifest import Build, GraphEntry, Weights

MEMORY_SHARE = 0.8  # of the machine's, at most
BOUNDS = ("min", "opt", "max")
NO_MEMORY = ("bad_alloc", "out of memory", "OutOfMemory")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a build may use: seconds on the clock, and bytes of memory (None: most of the machine's)."""

    seconds: float = 1800.0
    memory: int | None = None


def check_installed() -> None:
    """Raise MachineError where the libraries are not installed."""
    absent = [name for name in (LIBRARIES, BINDINGS) if find_spec(name) is None]
    if sys.platform != "linux":
        raise MachineError("--check-build: TensorRT-RTX's libraries are used on Linux only")
    if absent:
        raise MachineError(f"--check-build: {', '.join(absent)} not installed; install octavo[rtx]")


def check_build(bundle: Path, graph: GraphEntry, weights: Weights, allowance: Allowance | None = None) -> Build:
    """Build a graph with one of its models' weights.

    Raises GateError naming the node where TensorRT refuses the graph, MachineError where the libraries are not
    installed or the allowance is too small to tell.
    """
    check_installed()
    found = try_build(bundle, graph, weights, allowance or Allowance())
    if not found.passed:
        raise GateError(f"{graph.name}: {found.library} does not build it: {found.error}")
    return found


def try_build(bundle: Path, graph: GraphEntry, weights: Weights, allowance: Allowance) -> Build:
    """How building a graph went. Raises MachineError where the allowance is too small to tell."""
    with tempfile.TemporaryDirectory(prefix="octavo-rtx-") as folder:
        model = _gathered(Path(folder), bundle, weights)
        answer = Path(folder) / "answer.json"
        request = Request(str(model), shapes(graph.trt_profiles), str(answer), _memory(allowance))
        command = [sys.executable, "-m", "octavo.exporters.rtx_worker", json.dumps(asdict(request))]
        try:
            ended = subprocess.run(
                command,
                capture_output=True,
                timeout=allowance.seconds,
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            raise MachineError(f"{graph.name}: TensorRT-RTX has not built it in {allowance.seconds:.0f} s") from None
        printed = ended.stderr.strip().splitlines()
        if not answer.is_file():
            if _is_memory(ended.stderr):
                raise MachineError(_too_little(graph, allowance))
            died = signal.Signals(-ended.returncode).name if ended.returncode < 0 else str(ended.returncode)
            error = f"the builder ended with {died}: {printed[-1] if printed else 'nothing was said'}"
            return Build(library="TensorRT-RTX", seconds=0.0, engine_bytes=0, passed=False, error=error)
        found = Build.model_validate_json(answer.read_bytes())
    if found.error and _is_memory(found.error):
        raise MachineError(_too_little(graph, allowance))
    return found


def shapes(profiles: dict[str, str]) -> list[dict[str, list[list[int]]]]:
    """Optimization profiles by input, [min, opt, max] each, out of ONNX Runtime's `trt_profile_*_shapes` strings."""
    parts = [profiles[f"trt_profile_{bound}_shapes"].split(",") for bound in BOUNDS]
    found: list[dict[str, list[list[int]]]] = []
    for sizes in zip(*parts, strict=True):
        name = sizes[0].rpartition(":")[0]
        if not found or name in found[-1]:
            found.append({})
        found[-1][name] = [[int(size) for size in part.rpartition(":")[2].split("x")] for part in sizes]
    return found


def _gathered(folder: Path, bundle: Path, weights: Weights) -> Path:
    """The model with its weights beside it, where the parser looks for them: the bundle's own place, or links."""
    model = bundle / weights.model
    if all((bundle / path) == model.parent / location for location, path in weights.locations.items()):
        return model
    (folder / model.name).write_bytes(model.read_bytes())
    for location, path in weights.locations.items():
        (folder / location).symlink_to((bundle / path).resolve())
    return folder / model.name


def _memory(allowance: Allowance) -> int:
    return allowance.memory or int(MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _is_memory(text: str) -> bool:
    return any(sign in text for sign in NO_MEMORY)


def _too_little(graph: GraphEntry, allowance: Allowance) -> str:
    return f"{graph.name}: TensorRT-RTX needs more than {_memory(allowance) / 1e9:.1f} GB of memory to build it"
