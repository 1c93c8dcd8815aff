"""ONNX models of nothing but Identity nodes, written as protobuf by hand: for probing a provider and copying on one."""

from __future__ import annotations

from collections.abc import Sequence

OPSET, IR = 17, 8


def identity_model(count: int, element_type: int = 1, shape: Sequence[int] = (1,)) -> bytes:
    """Inputs x0, x1, ... copied to outputs y0, y1, ...; `element_type` is ONNX's number (1 is float32)."""
    names = [(f"x{index}", f"y{index}") for index in range(count)]
    nodes = [_message(1, _text(1, source) + _text(2, target) + _text(4, "Identity")) for source, target in names]
    inputs = [_message(11, _tensor(source, element_type, shape)) for source, _ in names]
    outputs = [_message(12, _tensor(target, element_type, shape)) for _, target in names]
    graph = b"".join(nodes) + _text(2, "copies") + b"".join(inputs) + b"".join(outputs)
    return _number(1, IR) + _message(7, graph) + _message(8, _number(2, OPSET))


def _tensor(name: str, element_type: int, shape: Sequence[int]) -> bytes:
    sizes = b"".join(_message(1, _number(1, size)) for size in shape)
    return _text(1, name) + _message(2, _message(1, _number(1, element_type) + _message(2, sizes)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)
