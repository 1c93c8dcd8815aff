"""What a graph must be for its execution providers: checked by onnx, every dimension named, only operators allowed."""

from __future__ import annotations

import onnx

from octavo.profiles.errors import BundleError
from octavo.profiles.manifest import Lowering

LARGEST_GRAPH = 64 * 2**20  # bytes of model.onnx; weights lie outside
ONNX_DOMAINS = {"", "ai.onnx"}

# Standard operators that TensorRT's parser knows and its builder took in this form; contrib operators need plug-ins.
TENSORRT_OPERATORS = frozenset(
    """Add And Attention Cast Concat Cos Div Equal Gather GatherND Gelu Gemm Greater GreaterOrEqual LessOrEqual MatMul
    Mul RMSNormalization Range ReduceLogSumExp ReduceMin ReduceSum Relu Reshape RotaryEmbedding Shape Sigmoid Sin
    Softmax Split Squeeze Sub Tanh TensorScatter TopK Transpose Unsqueeze Where""".split()  # noqa: SIM905
)
ORT_CONTRIB = frozenset({"GroupQueryAttention", "SkipSimplifiedLayerNormalization", "MatMulNBits", "MoE", "QMoE"})


def check_graph(model: bytes, lowering: Lowering) -> list[str]:
    """Check a serialized graph; returns the checks that it passed, in words. Raises BundleError naming the node."""
    proto = onnx.load_model_from_string(model)
    if len(model) > LARGEST_GRAPH:
        raise BundleError(f"model.onnx has {len(model)} bytes; a graph without its weights has at most {LARGEST_GRAPH}")
    _check_operators(proto, lowering)
    _check_names(proto)
    _weights_as_inputs(proto)
    try:
        onnx.checker.check_model(proto)
        if lowering == "tensorrt":
            onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"model.onnx: {str(error).splitlines()[0]}") from None
    checks = ["onnx checker", f"operators of {lowering}", "named dimensions"]
    return [*checks, "strict shape inference", "static cache", "typed attention"] if lowering == "tensorrt" else checks


def _check_operators(proto: onnx.ModelProto, lowering: Lowering) -> None:
    for node in proto.graph.node:
        standard = node.domain in ONNX_DOMAINS
        if lowering == "tensorrt" and not (standard and node.op_type in TENSORRT_OPERATORS):
            raise BundleError(f"{node.name}: {node.domain or 'onnx'}.{node.op_type} is no operator for TensorRT")
        if not standard and not (node.domain == "com.microsoft" and node.op_type in ORT_CONTRIB):
            raise BundleError(f"{node.name}: {node.domain}.{node.op_type} is not on the list of allowed operators")
        if lowering == "tensorrt" and node.op_type == "Attention" and (len(node.output) != 1 or len(node.input) > 4):
            raise BundleError(f"{node.name}: TensorRT takes Attention with one output and its cache outside")
        if lowering == "tensorrt" and any(each.name == "softcap" and each.f for each in node.attribute):
            raise BundleError(f"{node.name}: TensorRT's {node.op_type} does not cap scores")


def _weights_as_inputs(proto: onnx.ModelProto) -> None:
    """Declare external weights as inputs: the checker would look for their files beside the working directory."""
    external = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        proto.graph.initializer.remove(tensor)


def _check_names(proto: onnx.ModelProto) -> None:
    for value in [*proto.graph.input, *proto.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.dim_param and dimension.dim_value <= 0:
                raise BundleError(f"{value.name}: a dimension has neither a size nor a name")
