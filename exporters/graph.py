"""One graph of a bundle: drawn from a decoder's description, checked, and described for the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import onnx_ir as ir

from octavo.exporters.checkpoint import DTYPES, WHOLE, Tensor
from octavo.exporters.decoder import Drawing
from octavo.exporters.heads import fit_heads
from octavo.exporters.linear import Dense
from octavo.exporters.lora import Adapter
from octavo.exporters.lowering import Lowering as Target
from octavo.exporters.net import Net
from octavo.exporters.ort import OrtLowering
from octavo.exporters.outputs import Outputs
from octavo.exporters.policy import check_graph
from octavo.exporters.profiles import EP_CONTEXT_OPTIONS, OPTIONS, REFIT_OPTIONS, shape_profiles
from octavo.exporters.quantize import Blockwise
from octavo.exporters.spec import Decoder
from octavo.exporters.spec import Head as HeadKind
from octavo.exporters.stacked import Stacked
from octavo.exporters.tensorrt import CACHE_LENGTH, TensorrtLowering
from octavo.exporters.weights import Layout, Weight
from octavo.profiles.errors import BundleError
from octavo.profiles.manifest import GraphEntry, KVLayout, KVPrecision, Lowering, Precision, Provider

PROVIDERS: dict[Lowering, list[Provider]] = {
    "ort": ["CPUExecutionProvider", "CUDAExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider"],
}
TYPES = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}

EVERYTHING = Outputs()
BITS = {"int8": 8, "int4": 4}


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph without its weights. `decoder` says what it computes where the graph is our own drawing.

    `why` says why it was traced where it was. A classifier that reads a sequence at once has no `kv`.
    """

    name: str
    lowering: Lowering
    precision: Precision
    head: HeadKind
    vocab_size: int
    net: Net
    kv: KVLayout | None
    decoder: Decoder | None = None
    outputs: Outputs = EVERYTHING
    adapters: tuple[Adapter, ...] = ()
    route: Literal["native", "optimum"] = "native"
    why: str = ""

    @property
    def scaled(self) -> bool:
        """Whether its cache is in int8, by scales that are to be measured."""
        return self.kv is not None and self.kv.scales is not None

    @property
    def weights(self) -> Iterable[Weight]:
        return self.net.weights.values()

    def serialize(self, layout: Layout) -> bytes:
        """The model.onnx: equal bytes for equal graphs."""
        return bytes(ir.to_proto(self.net.model(layout)).SerializeToString(deterministic=True))

    def entry(self, model: bytes) -> GraphEntry:
        """What the manifest says of the serialized graph, after checking it. Raises BundleError."""
        digest, checked = hashlib.sha256(model).hexdigest(), check_graph(model, self.lowering)
        settings = _tensorrt_settings(self.net, self.kv.max_length) if self.kv and self.lowering == "tensorrt" else {}
        return self.described().model_copy(update={"sha256": digest, "checked": checked, **settings})

    def described(self) -> GraphEntry:
        """Inputs, outputs and cache; neither hashed nor checked."""
        inputs, outputs = self.net.described()
        return GraphEntry(
            name=self.name,
            role="value" if self.head == "score" else "decoder",
            lowering=self.lowering,
            precision=self.precision,
            opset=self.net.opset,
            sha256="0" * 64,
            inputs=inputs,
            outputs=outputs,
            kv=self.kv,
            route=self.route,
            adapters=[adapter.name for adapter in self.adapters],
            providers=["CPUExecutionProvider"] if self.scaled else PROVIDERS[self.lowering],
        )


def draw_graph(
    name: str,
    decoder: Decoder,
    lowering: Lowering,
    precision: Precision,
    outputs: Outputs,
    activations: str = "fp32",
    adapters: tuple[Adapter, ...] = (),
    cache_length: int = CACHE_LENGTH,
    kv: KVPrecision = "model",
) -> Graph:
    """Draw a decoder for a target; int8 and int4 weights are multiplied by `activations` of fp32 or fp16.

    With `adapters`, each row of a batch names its own. `cache_length` (tokens) is for TensorRT's static
    cache, `kv` for that of the `ort` lowering. Raises BundleError for sparse layers that the precision cannot hold.
    """
    dtype = TYPES.get(precision) or TYPES[activations]
    plain = Blockwise(BITS[precision], dtype, len(decoder.layers)) if precision in BITS else Dense(dtype)
    linear = Stacked(plain, adapters, dtype) if adapters else plain
    fitted, bits = fit_heads(decoder)[0], BITS.get(precision)
    lower: Target = (
        OrtLowering(fitted, dtype, bits, kv)
        if lowering == "ort"
        else TensorrtLowering(fitted, dtype, min(decoder.max_length, cache_length))
    )
    Drawing(decoder, lower, linear, outputs).draw()
    cache = lower.finish()
    about = name, lowering, precision, decoder.head, decoder.vocab_size
    return Graph(*about, lower.net, cache, decoder, outputs, adapters)


def check_tensors(graph: Graph, tensors: Mapping[str, Tensor], source: str) -> None:
    """Every tensor that the graph reads must be in the checkpoint, and every one there be read. Raises BundleError."""
    stored = {name: tensor.shape for name, tensor in tensors.items()}
    wanted = {source for weight in graph.weights for source in weight.sources}
    missing, unread = sorted(wanted - set(stored)), sorted(set(stored) - wanted - _ignorable(graph, stored))
    if missing:
        raise BundleError(f"{source}: {len(missing)} tensors are missing: {', '.join(missing[:4])}")
    if whole := sorted(name for name in wanted if tensors[name].dtype in WHOLE):
        raise BundleError(f"{source}: {whole[0]} is {tensors[whole[0]].dtype}; weights are {', '.join(DTYPES)}")
    if any(".lora_a." in name for name in unread):
        module = next(name for name in unread if ".lora_a." in name).split(".lora_a.")[0]
        raise BundleError(f"{source}: an adapter of {module} cannot be stacked; --lora merged takes it")
    if unread:
        raise BundleError(f"{source}: the native route does not know what to do with {', '.join(unread[:4])}")


def _tensorrt_settings(net: Net, cache_length: int) -> dict[str, Any]:
    return {
        "trt_profiles": shape_profiles(net.described()[0], cache_length),
        "trt_options": OPTIONS,
        "trt_refit_options": OPTIONS | REFIT_OPTIONS,
        "trt_context_options": OPTIONS | EP_CONTEXT_OPTIONS,
    }


def _ignorable(graph: Graph, stored: Iterable[str]) -> set[str]:
    """Buffers that old checkpoints carry, and a tied head's second copy."""
    tied = {"lm_head.weight"} if graph.head == "score" or (graph.decoder and graph.decoder.tied) else set()
    return tied | {name for name in stored if name.endswith("rotary_emb.inv_freq")}
