"""Reads what a serialized ONNX graph is made of: its nodes, without the onnx library, and which only compute shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

INTEGERS = {6, 7, 9}  # ONNX's numbers for int32, int64 and bool
MEASURING = {"Shape", "Size", "Constant"}
VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5  # wire types of protobuf


@dataclass(frozen=True, slots=True)
class Node:
    """A node as its graph writes it; an input that is left out is an empty name."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_nodes(model: bytes) -> list[Node]:
    """The nodes of a graph, in its order."""
    return [_node(content) for content in _graph(model)[1]]


def shape_nodes(model: bytes) -> set[str]:
    """Names of the nodes that compute nothing but shapes: all they read are shapes and integers of the graph itself."""
    known = {name for name, kind in _initializers(_graph(model)[5]) if kind in INTEGERS} | {""}
    found = set()
    for node in read_nodes(model):
        if node.op_type in MEASURING or (node.inputs and known.issuperset(node.inputs)):
            found.add(node.name)
            known.update(node.outputs)
    return found


def _graph(model: bytes) -> defaultdict[int, list[bytes]]:
    return _fields(_fields(model)[7][0])


def _initializers(tensors: Sequence[bytes]) -> Iterator[tuple[str, int]]:
    for tensor in tensors:
        fields = _fields(tensor)
        yield fields[8][0].decode(), int.from_bytes(fields[2][0], "little")


def _node(content: bytes) -> Node:
    fields = _fields(content)
    texts = [tuple(value.decode() for value in fields[number]) for number in (1, 2, 3, 4)]
    return Node("".join(texts[2]), "".join(texts[3]), texts[0], texts[1])


def _fields(message: bytes) -> defaultdict[int, list[bytes]]:
    """The fields of a protobuf message by number, as bytes; a number is little-endian."""
    fields: defaultdict[int, list[bytes]] = defaultdict(list)
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == VARINT:
            value, end = _varint(message, at)
            fields[key >> 3].append(value.to_bytes(8, "little"))
        else:
            length, at = _varint(message, at) if key & 7 == BYTES else ({DOUBLE: 8, FLOAT: 4}[key & 7], at)
            end = at + length
            fields[key >> 3].append(message[at:end])
        at = end
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
