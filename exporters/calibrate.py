"""Measures the scales of an int8 KV cache: a model reads text with its cache as it is, and the cache is looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octavo.exporters.checkpoint import Array
from octavo.exporters.graph import Graph, draw_graph
from octavo.exporters.heads import fit_heads
from octavo.exporters.kv import PARTS, scale_name, scales_of, widest_keys, widest_values
from octavo.exporters.plan import OWN, Group, Member
from octavo.exporters.player import SMALL, Player, padded
from octavo.exporters.settings import Settings
from octavo.profiles.manifest import Weights

AT_ONCE = 8  # sequences
FILE = "unscaled.onnx"


def calibrate(bundle: Path, group: Group, member: Member, settings: Settings, sequences: Sequence[Array]) -> None:
    """Write the scales of a model's caches into its weights file, all else being there: those that `sequences` ask for.

    The same weights are run by a graph whose cache is not quantized. Adapters of one base share their scales.
    """
    graph = group.graphs[0]
    assert graph.decoder is not None
    plain = draw_graph(
        f"{graph.name}-unscaled",
        graph.decoder,
        graph.lowering,
        graph.precision,
        graph.outputs,
        settings.activations,
        graph.adapters,
    )
    path = bundle / member.folder / FILE
    path.write_bytes(plain.serialize(group.layout))
    try:
        widest = _widest(bundle, plain, member, group.locations(member), sequences)
    finally:
        path.unlink()
    with (bundle / member.folder / OWN).open("r+b") as stream:
        for name, found in widest.items():
            stream.seek(group.layout.places[name].offset)
            scales_of(found).tofile(stream)


def _widest(
    bundle: Path, graph: Graph, member: Member, locations: dict[str, str], sequences: Sequence[Array]
) -> dict[str, Array]:
    """By the scale's name, the largest that each channel was or could be, [kv_heads, head_dim]."""
    entry = Weights(graph=graph.name, model=f"{member.folder}/{FILE}", locations=locations)
    threads = 1 if member.checkpoint.parameters < SMALL else os.cpu_count() or 1
    player = Player(bundle, entry, graph.described(), AT_ONCE, max(map(len, sequences)), threads=threads)
    found: dict[str, Array] = {}
    for adapter in range(len(graph.adapters) or 1):
        player.adapter = adapter
        for start in range(0, len(sequences), AT_ONCE):
            batch = sequences[start : start + AT_ONCE]
            _read(player, batch)
            for name, widest in _of_cache(player.cache, graph, [len(ids) for ids in batch]).items():
                found[name] = np.maximum(found.get(name, 0), widest)
    return found


def _read(player: Player, batch: Sequence[Array]) -> None:
    """Prefill some sequences, padded on the right."""
    ids, lengths = padded(batch)
    player.run(slice(0, len(batch)), ids, np.zeros(len(batch)), lengths, ids.shape[1], lengths[:, None] - 1)


def _of_cache(cache: Array, graph: Graph, lengths: list[int]) -> dict[str, Array]:
    """The same, of what a cache [2 * layers, rows, kv_heads, length, head_dim] holds of its rows."""
    assert graph.decoder is not None
    found = {}
    for index, layer in enumerate(fit_heads(graph.decoder)[0].layers):
        keys, values = (
            np.concatenate([cache[2 * index + part, row, :, :length] for row, length in enumerate(lengths)], axis=1)
            for part in range(len(PARTS))
        )
        pairs = len(layer.rotary.inverse_frequencies)
        found[scale_name(index, "key")] = widest_keys(keys.swapaxes(0, 1), pairs)
        found[scale_name(index, "value")] = widest_values(values.swapaxes(0, 1))
    return found
