"""One graph of a bundle: drawn from a decoder's description, checked, and described for the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from octavo.exporters.decoder import Drawing
from octavo.exporters.heads import fit_heads
from octavo.exporters.linear import Dense
from octavo.exporters.net import Net
from octavo.exporters.ort import OrtLowering
from octavo.exporters.outputs import Outputs
from octavo.exporters.spec import Decoder
from octavo.exporters.weights import Layout, Weight
from octavo.profiles.errors import BundleError
from octavo.profiles.manifest import GraphEntry, KVLayout, Lowering, Precision, Provider

PROVIDERS: dict[Lowering, list[Provider]] = {
    "ort": ["CPUExecutionProvider", "CUDAExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider"],
}
TYPES = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


@dataclass(frozen=True, slots=True)
class Graph:
    """A drawn graph without its weights: `decoder` says what it computes, `net` how."""

    name: str
    lowering: Lowering
    precision: Precision
    decoder: Decoder
    net: Net
    kv: KVLayout

    @property
    def weights(self) -> Iterable[Weight]:
        return self.net.weights.values()

    def serialize(self, layout: Layout) -> bytes:
        """The model.onnx: equal bytes for equal graphs."""
        return bytes(ir.to_proto(self.net.model(layout)).SerializeToString(deterministic=True))

    def entry(self, model: bytes) -> GraphEntry:
        inputs, outputs = self.net.described()
        return GraphEntry(
            name=self.name,
            role="value" if self.decoder.head == "score" else "decoder",
            lowering=self.lowering,
            precision=self.precision,
            opset=self.net.opset,
            sha256=hashlib.sha256(model).hexdigest(),
            inputs=inputs,
            outputs=outputs,
            kv=self.kv,
            providers=PROVIDERS[self.lowering],
        )


def draw_graph(name: str, decoder: Decoder, lowering: Lowering, precision: Precision, outputs: Outputs) -> Graph:
    """Draw a decoder for a target. Raises BundleError where the target or the precision does not know a feature."""
    lower = OrtLowering(fit_heads(decoder)[0], TYPES[precision])
    Drawing(decoder, lower, Dense(TYPES[precision]), outputs).draw()
    return Graph(name, lowering, precision, decoder, lower.net, lower.finish())


def check_tensors(graph: Graph, stored: dict[str, tuple[int, ...]], source: str) -> None:
    """Every tensor that the graph reads must be in the checkpoint, and every one there be read. Raises BundleError."""
    wanted = {source for weight in graph.weights for source in weight.sources}
    missing, unread = sorted(wanted - set(stored)), sorted(set(stored) - wanted - _ignorable(graph.decoder, stored))
    if missing:
        raise BundleError(f"{source}: {len(missing)} tensors are missing: {', '.join(missing[:4])}")
    if unread:
        raise BundleError(f"{source}: the native route does not know what to do with {', '.join(unread[:4])}")


def _ignorable(decoder: Decoder, stored: Iterable[str]) -> set[str]:
    """Buffers that old checkpoints carry, and a tied head's second copy."""
    tied = {"lm_head.weight"} if decoder.tied or decoder.head == "score" else set()
    return tied | {name for name in stored if name.endswith("rotary_emb.inv_freq")}
