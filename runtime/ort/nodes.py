"""Reads what a serialized ONNX graph is made of: its nodes, without the onnx library, and which only compute shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

INTEGERS = {6, 7, 9}  # ONNX's numbers for int32, int64 and bool
MEASURING = {"Shape", "Size", "Constant"}
GRAPH, NODE, INITIALIZER = 7, 1, 5  # fields: of a model its graph, of a graph the others
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
    return [read_node(content) for content in _fields(_fields(model)[GRAPH][0])[NODE]]


def read_initializers(model: bytes) -> Iterator[tuple[str, int]]:
    """Names of a graph's constants, and ONNX's numbers for their types."""
    for tensor in _fields(_fields(model)[GRAPH][0])[INITIALIZER]:
        fields = _fields(tensor)
        yield fields[8][0].decode(), int.from_bytes(fields[2][0], "little")


def shape_nodes(model: bytes) -> set[str]:
    """Names of the nodes that compute nothing but shapes: all they read are shapes and integers of the graph itself."""
    known = {name for name, kind in read_initializers(model) if kind in INTEGERS} | {""}
    found = set()
    for node in read_nodes(model):
        if node.op_type in MEASURING or (node.inputs and known.issuperset(node.inputs)):
            found.add(node.name)
            known.update(node.outputs)
    return found


def read_node(content: bytes) -> Node:
    fields = _fields(content)
    texts = [tuple(value.decode() for value in fields[number]) for number in (1, 2, 3, 4)]
    return Node("".join(texts[2]), "".join(texts[3]), texts[0], texts[1])


def read_name(content: bytes) -> str:
    """Of one of a graph's inputs or outputs."""
    return _fields(content)[1][0].decode()


def each_field(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The fields of a protobuf message: number, content (a number is little-endian), and the bytes of the whole."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        if key & 7 == VARINT:
            value, end = _varint(message, at)
            content = value.to_bytes(8, "little")
        else:
            length, at = _varint(message, at) if key & 7 == BYTES else ({DOUBLE: 8, FLOAT: 4}[key & 7], at)
            end = at + length
            content = message[at:end]
        yield key >> 3, content, message[start:end]
        at = end


def field(number: int, content: bytes | int) -> bytes:
    """A field as a message has it."""
    if isinstance(content, int):
        return _written(number << 3 | VARINT) + _written(content)
    return _written(number << 3 | BYTES) + _written(len(content)) + content


def _fields(message: bytes) -> defaultdict[int, list[bytes]]:
    """The contents of a message's fields, by number."""
    fields: defaultdict[int, list[bytes]] = defaultdict(list)
    for number, content, _ in each_field(message):
        fields[number].append(content)
    return fields


def _written(number: int) -> bytes:
    """A number as a varint."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
