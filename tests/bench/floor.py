"""How near a decode step comes to the machine's floor: its weights read once, or its arithmetic at a product's speed.

    python tests/bench/floor.py BUNDLE [ROWS ...]

Milliseconds of one thread, then of as many at once as there are cores (each decodes with an expert of its own, as lanes
do), everything in turns, the least of the rounds. The floor is whichever binds: the weights' bytes over the speed at
which so many threads read memory (in huge pages, by dot products), or the floating-point operations over the speed of
products of two square matrices of 1024.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import numpy as np
import onnxruntime as ort

from octavo.profiles.manifest import read_manifest
from octavo.runtime.ort.binding import Calls
from octavo.runtime.ort.cache import Cache
from octavo.runtime.ort.providers import CPU
from octavo.runtime.ort.session import Device, Model, open_model
from octavo.runtime.place import cores

CONTEXT, LENGTH, ROUNDS, SIDE = 160, 192, 15, 1024
PART = 250_000  # float32 numbers of one dot product


def decode(model: Model, rows: int) -> Callable[[], object]:
    calls = Calls(model, Cache(model.kv, rows, LENGTH, model.device))
    calls.lengths[:] = CONTEXT
    return lambda: calls.decode(rows)


def reading(weights: int) -> Callable[[], None]:
    memory = np.ones((weights // 4 // PART, PART), np.float32)

    def read() -> None:
        for part in memory:
            np.dot(part, part)

    return read


def product() -> Callable[[], object]:
    """Of two square matrices, in ONNX Runtime."""
    from onnx import TensorProto, helper

    shape = [SIDE, SIDE]
    b = helper.make_tensor("b", TensorProto.FLOAT, shape, np.ones(shape, np.float32).tobytes(), raw=True)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("a", "c")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", ends[:1], ends[1:], [b])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    feeds = {"a": np.ones(shape, np.float32)}
    return lambda: session.run(None, feeds)


def least(calls: dict[str, list[Callable[[], Any]]]) -> dict[str, float]:
    """Seconds of each name's calls, which run at once; the names in turns."""
    found = dict.fromkeys(calls, float("inf"))
    with ThreadPoolExecutor(cores()) as threads:
        for _ in range(ROUNDS):
            for name, together in calls.items():
                begun = perf_counter()
                for future in [threads.submit(call) for call in together]:
                    future.result()
                found[name] = min(found[name], perf_counter() - begun)
    return found


def main(bundle: Path, batches: list[int]) -> None:
    manifest = read_manifest(bundle)
    experts = manifest.experts[: cores()]
    config = json.loads((bundle / experts[0].folder / "config.json").read_text())
    size = sum(entry.size for entry in manifest.files if entry.path == f"{experts[0].folder}/weights.bin")
    weights = size - config["vocab_size"] * config["hidden_size"] * 4  # a step reads a row of that table, not the table
    models = {
        kept: [open_model(bundle, manifest, e.name, e.weights, CPU, Device("cpu"), 1, prepack=kept) for e in experts]
        for kept in (False, True)
    }
    calls: dict[str, list[Callable[[], Any]]] = {
        "read": [reading(weights) for _ in experts],
        "product": [product() for _ in experts],
    }
    for rows in batches:
        for kept, opened in models.items():
            calls[f"{rows} rows{', prepacked' * kept}"] = [decode(model, rows) for model in opened]
    for lanes in sorted({1, len(experts)}):
        tell(weights, lanes, least({name: each[:lanes] for name, each in calls.items()}))


def tell(weights: int, lanes: int, seconds: dict[str, float]) -> None:
    read, product = seconds.pop("read"), seconds.pop("product")
    bandwidth, flops = lanes * weights / read, lanes * 2 * SIDE**3 / product
    print(f"{lanes} at once: {weights / 1e6:.0f} MB a step, {bandwidth / 1e9:.1f} GB/s, {flops / 1e9:.0f} GFLOP/s")
    for name, each in seconds.items():
        floor = max(read, lanes * int(name.split()[0]) * weights / 2 / flops)
        print(f"  {name}: {each * 1e3:.1f} ms, floor {floor * 1e3:.1f} ms, {floor / each:.2f} of its speed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(rows) for rows in sys.argv[2:]] or [2, 16])
