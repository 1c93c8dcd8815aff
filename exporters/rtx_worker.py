"""The process that hands a graph to TensorRT-RTX: `python -m octavo.exporters.rtx_worker REQUEST`.

It imports nothing heavy of ours, and writes its answer to a file, for the libraries print as they like.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LIBRARIES, BINDINGS = "onnxruntime_ep_nv_tensorrt_rtx", "tensorrt_rtx_bindings"
SHARED = ("libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*")  # in the order of their dependencies


@dataclass(frozen=True, slots=True)
class Request:
    """A model.onnx, [min, opt, max] of each input in each profile, the file for the answer, and bytes of memory."""

    model: str
    profiles: list[dict[str, list[list[int]]]]
    answer: str
    memory: int


def main(request: Request) -> None:
    limit(request.memory)
    trt = load()
    start = time.perf_counter()
    engine, error = build(trt, request)
    found = {
        "library": f"TensorRT-RTX {trt.__version__}",
        "seconds": round(time.perf_counter() - start, 2),
        "engine_bytes": engine,
        "passed": error is None,
        "error": error,
    }
    Path(request.answer).write_text(json.dumps(found))


def limit(memory: int) -> None:
    """Bound data, not address space: NVIDIA's driver reserves far more of that than it uses."""
    import resource  # absent on Windows, where this module is imported but never run

    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load() -> Any:
    """The bindings, which find the libraries by name because these are loaded already."""
    spec = find_spec(LIBRARIES)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {LIBRARIES}")
    for pattern in SHARED:
        ctypes.CDLL(str(next(Path(spec.origin).parent.glob(pattern))), mode=ctypes.RTLD_GLOBAL)
    return import_module(BINDINGS)


def build(trt: Any, request: Request) -> tuple[int, str | None]:
    """Bytes of the engine, and what went wrong."""
    errors, logger = listen(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(request.model):
        return 0, refusal(parser, errors)
    config = builder.create_builder_config()
    for number, profile in enumerate(request.profiles):
        if error := add_profile(builder, network, config, profile):
            return 0, f"profile {number}: {error}"
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return 0, errors[0] if errors else "no reason given"
    return engine.nbytes, None


def listen(trt: Any) -> tuple[list[str], Any]:
    """A logger, and the list of the errors that it hears of."""
    errors: list[str] = []

    class Listener(trt.ILogger):  # type: ignore[misc]  # the bindings give no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.Severity.ERROR:
                errors.append(message)

    return errors, Listener()


def refusal(parser: Any, errors: list[str]) -> str:
    """The parser's first error, with its node."""
    if parser.num_errors:
        first = parser.get_error(0)
        node = f"node {first.node_name()} ({first.node_operator()}): " if first.node_name() else ""
        return f"{node}{first.desc()}"
    return errors[0] if errors else "the parser gave no reason"


def add_profile(builder: Any, network: Any, config: Any, profile: dict[str, list[list[int]]]) -> str | None:
    """Give the builder the shapes of one kind of call; returns what is wrong with them."""
    inputs = {network.get_input(index).name for index in range(network.num_inputs)}
    if set(profile) != inputs:
        return f"it names {sorted(set(profile) ^ inputs)}, which the graph or the profile lacks"
    shapes = builder.create_optimization_profile()
    for name, sizes in profile.items():
        shapes.set_shape(name, *(tuple(size) for size in sizes))
    return None if config.add_optimization_profile(shapes) >= 0 else "its sizes are not in order, or not the graph's"


if __name__ == "__main__":
    main(Request(**json.loads(sys.argv[1])))
