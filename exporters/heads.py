"""Head sizes that attention kernels do not take, padded to ones that they do without changing a single score.

A head is laid out as [first halves of the turned pairs, zeros, second halves, zeros, elements not turned, zeros]: the
zeros add nothing to any dot product, so that only the weights' rows and columns have to be put in place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from octavo.exporters.checkpoint import Array
from octavo.exporters.spec import Decoder, Layer

HALF = 8  # ONNX Runtime's rotary kernels turn multiples of eight pairs
WHOLE = 16  # and heads of multiples of sixteen elements


@dataclass(frozen=True, slots=True)
class HeadLayout:
    """For each element of a head in the graph, which stored element it is; -1 for a zero.

    `turned` is for queries and keys, `plain` for values. `stored` is the checkpoint's head size.
    """

    stored: int
    turned: tuple[int, ...]
    plain: tuple[int, ...]

    @property
    def padded(self) -> bool:
        return len(self.plain) != self.stored

    def rows(self, heads: int, *, turned: bool) -> Array:
        """The stored row of each row of a projection of `heads` heads."""
        order = np.array(self.turned if turned else self.plain)
        starts = np.arange(heads)[:, None] * self.stored
        return np.asarray(np.where(order < 0, -1, order + starts).reshape(-1))


def fit_heads(decoder: Decoder) -> tuple[Decoder, HeadLayout]:
    """The decoder as the kernels want it, and how its stored heads are laid out in it."""
    size, pairs = decoder.head_dim, len(decoder.layers[0].rotary.inverse_frequencies)
    half = _up(pairs, HALF)
    if half == pairs and size % WHOLE == 0:
        same = tuple(range(size))
        return decoder, HeadLayout(size, same, same)
    first, second, rest = range(pairs), range(pairs, 2 * pairs), range(2 * pairs, size)
    gap = [-1] * (half - pairs)
    turned = [*first, *gap, *second, *gap, *rest]
    target = _up(len(turned), WHOLE)
    layout = HeadLayout(size, _filled(turned, target), _filled(range(size), target))
    layers = tuple(_fit_layer(layer, half) for layer in decoder.layers)
    return replace(decoder, head_dim=target, layers=layers), layout


def place(array: Array, order: Array) -> Array:
    """Rows of an array in an order, zeros where it says -1."""
    placed = array[np.maximum(order, 0)]
    placed[order < 0] = 0
    return placed


def _fit_layer(layer: Layer, half: int) -> Layer:
    frequencies = layer.rotary.inverse_frequencies
    padded = frequencies + (0.0,) * (half - len(frequencies))
    return replace(layer, rotary=replace(layer.rotary, inverse_frequencies=padded))


def _filled(order: list[int] | range, size: int) -> tuple[int, ...]:
    return (*order, *[-1] * (size - len(order)))


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
