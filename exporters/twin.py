"""The fp32 twin of a graph that the CPU cannot run: the same numbers, rounded as the graph's, in wider types."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from octavo.exporters.checkpoint import Array, Checkpoint
from octavo.exporters.graph import Graph, draw_graph
from octavo.exporters.weights import Weight, lay_out, write_weights
from octavo.profiles.manifest import GraphEntry, Weights

FILE = "twin.bin"


@contextmanager
def runnable(
    bundle: Path, graph: Graph, checkpoint: Checkpoint, weights: Weights
) -> Iterator[tuple[Path, GraphEntry, Weights]]:
    """The folder, graph and files to run on the CPU: the bundle's own, or a temporary twin's where it is bfloat16."""
    if graph.precision != "bf16":
        yield bundle, graph.described(), weights
        return
    with tempfile.TemporaryDirectory(dir=bundle, prefix=".twin-") as folder:
        yield _write_twin(Path(folder), graph, checkpoint)


def _write_twin(folder: Path, graph: Graph, checkpoint: Checkpoint) -> tuple[Path, GraphEntry, Weights]:
    assert graph.decoder is not None
    assert graph.kv is not None
    twin = draw_graph(
        f"{graph.name}-twin",
        graph.decoder,
        graph.lowering,
        "fp32",
        graph.outputs,
        adapters=graph.adapters,
        cache_length=graph.kv.max_length,
    )
    rounded = [_rounded(weight) for weight in twin.weights]
    layout = lay_out(rounded, lambda weight: FILE)
    write_weights(folder / FILE, rounded, layout, FILE, checkpoint)
    (folder / "model.onnx").write_bytes(twin.serialize(layout))
    return folder, twin.described(), Weights(graph=twin.name, model="model.onnx", locations={FILE: FILE})


def _rounded(weight: Weight) -> Weight:
    def make(*sources: Array) -> Any:
        return weight.make(*sources).astype(ir.DataType.BFLOAT16.numpy())

    return replace(weight, make=make)
