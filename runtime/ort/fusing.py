"""Puts octavo's own operators in place of a graph's: in its bytes, as a session opens it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from octavo.profiles.manifest import KVLayout
from octavo.runtime.ort.nodes import GRAPH, NODE, Node, each_field, field, read_initializers, read_name, read_node

DOMAIN = "octavo"
OPSET, INPUT, OUTPUT, IN = 8, 11, 12, 7  # fields: of an ONNX model, of its graph (two), of a node its domain
FORKS = "forks"  # an input for octavo's attention: each row's family, and how many tokens its rows have in common
WIDTH = 16  # a head is a multiple of it
INT32 = 6


def fused(model: bytes, kv: KVLayout | None = None) -> bytes:
    """The same graph with octavo's operators; the very bytes where there is no place for them. `kv` is its cache."""
    graph = next(content for number, content, _ in each_field(model) if number == GRAPH)
    bodies = [content for number, content, _ in each_field(graph) if number == NODE]
    nodes = [read_node(body) for body in bodies]
    shown = [read_name(content) for number, content, _ in each_field(graph) if number == OUTPUT]
    moved: dict[int, bytes] = {}
    changed = dict(low_rank(nodes, {name for name, _ in read_initializers(model)}, shown))
    if kv is not None and kv.dtype == "float32" and kv.head_dim % WIDTH == 0:
        moved = {number: _moved(bodies[number]) for number, node in enumerate(nodes) if is_attention(node)}
        changed |= moved
    if not changed:
        return model
    rest = b"".join(whole for number, _, whole in each_field(model) if number != GRAPH)
    domain = field(OPSET, field(1, DOMAIN.encode()) + field(2, 1))
    forks = _forks() if moved else b""
    return rest + domain + field(GRAPH, b"".join(_parts(graph, changed)) + forks)


def is_attention(node: Node) -> bool:
    """Whether it is attention with rotary embedding, without a bias, positions or scales of a quantized cache."""
    return node.op_type == "GroupQueryAttention" and len(node.inputs) == 9 and all(node.inputs)


def low_rank(nodes: Sequence[Node], weights: set[str], shown: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """For every `Add(there, MatMul(Mul(MatMul(x, A), factors), B))`: what its nodes become, by their numbers.

    `shown` are the graph's outputs.
    """
    makers = {node.outputs[0]: number for number, node in enumerate(nodes) if node.outputs}
    uses = Counter(shown) + Counter(name for node in nodes for name in node.inputs)

    def made(name: str, op_type: str) -> int | None:
        """The number of the node of this type that makes a value which nothing else reads."""
        number = makers.get(name)
        return number if number is not None and nodes[number].op_type == op_type and uses[name] == 1 else None

    for number, node in enumerate(nodes):
        chain, name = [number], node.inputs[1] if node.op_type == "Add" else ""
        for op_type in ("MatMul", "Mul", "MatMul"):
            if (before := made(name, op_type)) is None:
                break
            chain.append(before)
            name = nodes[before].inputs[0]
        else:
            _, second, masked, first = (nodes[each] for each in chain)
            if {first.inputs[1], second.inputs[1]} <= weights:
                inputs = node.inputs[0], first.inputs[0], first.inputs[1], second.inputs[1], masked.inputs[1]
                yield from ((each, b"") for each in chain)
                yield number, _node("LowRank", node.name, inputs, node.outputs)


def _node(op_type: str, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    texts = [*((1, each) for each in inputs), *((2, each) for each in outputs), (3, name), (4, op_type), (IN, DOMAIN)]
    return b"".join(field(number, text.encode()) for number, text in texts)


def _moved(body: bytes) -> bytes:
    """The same node as an operator of octavo's, which reads the rows' families too."""
    rest = b"".join(whole for number, _, whole in each_field(body) if number != IN)
    return rest + field(1, FORKS.encode()) + field(IN, DOMAIN.encode())


def _forks() -> bytes:
    """The graph's input [., 2] of int32."""
    shape = field(1, field(2, b"rows")) + field(1, field(1, 2))
    return field(INPUT, field(1, FORKS.encode()) + field(2, field(1, field(1, INT32) + field(2, shape))))


def _parts(graph: bytes, changed: dict[int, bytes]) -> Iterator[bytes]:
    """The graph's fields, with the nodes of some numbers in their new form, or gone."""
    at = -1
    for number, _, whole in each_field(graph):
        at += number == NODE
        if number != NODE or at not in changed:
            yield whole
        elif changed[at]:
            yield field(NODE, changed[at])
