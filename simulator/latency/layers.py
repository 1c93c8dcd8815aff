"""Step times from measured layers: dense ones by tokens, the head by sequences, attention by its four lengths.

The tables are those of LLMServingSim 2.0: dense.csv, per_sequence.csv, attention.csv and skew_fit.csv in microseconds,
and beside their folder a meta.yaml that says whether the skew was fitted on this device. A step is every layer's dense
parts and attention, then the head and the sampler for the rows that are sampled.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.read import read_data
from octavo.runtime.core.scheduler import Chunk
from octavo.simulator.latency.model import Line
from octavo.simulator.latency.table import Curve

ONCE = ("embedding", "final_layernorm")
TWICE = ("layernorm",)
MICROSECOND = 1e-6
LONGEST = 3.0
"""The longest context of a batch over the mean one: about that of chat (ShareGPT, batches of a hundred)."""


Tree = dict[int, Any]


class Attention:
    """Seconds of one layer's attention by prefill tokens, their KV, decoding rows and mean KV of each.

    Linear along each length in turn; every measured value of one has its own grid of the next, so that grids differ.
    `skew` says, by the most rows that it is for, how far rows of unequal context are served like equal ones of the
    longest: 0 as of the mean, 1 as of the longest.
    """

    def __init__(self, points: Mapping[tuple[int, int, int, int], float], skew: Mapping[int, float]) -> None:
        self._skew = sorted(skew.items())
        self._tree: Tree = {}
        for (chunk, past, rows, context), seconds in sorted(points.items()):
            under = self._tree.setdefault(chunk, {}).setdefault(past, {}).setdefault(rows, {})
            under[context] = seconds

    def seconds(self, chunk: float, past: float, rows: float, context: float) -> float:
        """Of a step that prefills `chunk` tokens after `past` and decodes `rows` of `context` each."""
        return _interpolated(self._tree, (chunk, past, rows, context * self._unequal(rows)))

    def _unequal(self, rows: float) -> float:
        """The equal context that takes as long as the rows' unequal ones, over their mean."""
        alpha = next((alpha for most, alpha in self._skew if rows <= most), 0.0)
        return 1 + max(alpha, 0.0) * (LONGEST - 1)

    def over_context(self, rows: float) -> Curve:
        """Of decode steps, over the context of all rows together."""
        contexts = sorted({context for under in self._tree[0][0].values() for context in under})
        equal = [value / self._unequal(rows) for value in contexts]
        return Curve.through([(rows * value, self.seconds(0, 0, rows, value)) for value in equal])


def _interpolated(tree: Tree, at: tuple[float, ...]) -> float:
    """Between the neighbours of each length; beyond the last, on as it was."""
    x, rest = at[0], at[1:]
    axis = list(tree)
    if len(axis) == 1 or x <= axis[0]:
        return _under(tree[axis[0]], rest)
    upper = min(bisect_right(axis, x), len(axis) - 1)
    low, high = axis[upper - 1], axis[upper]
    share = (x - low) / (high - low)
    if not share:
        return _under(tree[low], rest)
    return (1 - share) * _under(tree[low], rest) + share * _under(tree[high], rest)


def _under(branch: Any, at: tuple[float, ...]) -> float:
    return _interpolated(branch, at) if at else float(branch)


@dataclass
class Layers:
    """A model of so many layers; `overhead` is the host's, per step."""

    name: str
    layers: int
    dense: Curve
    head: Curve
    attention: Attention
    overhead: float = 0.0
    _curves: dict[int, Curve] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"measured layers of {self.name}"

    @property
    def band(self) -> float:
        return 0.05

    def decode(self, rows: int, context: int) -> Line:
        curve = self._curves.get(rows)
        if curve is None:
            curve = self._curves[rows] = self.attention.over_context(rows)
        line = curve.line(context)
        return Line(self._others(rows, rows) + self.layers * line.seconds, self.layers * line.slope, line.until)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        tokens = sum(chunk.tokens for chunk in chunks)
        sampled = rows + sum(chunk.completes for chunk in chunks)
        pairs = sum(chunk.tokens * (chunk.start + chunk.tokens / 2) for chunk in chunks)
        # Several prompts in one step are as much work as one chunk that attends to as many pairs of tokens.
        past = pairs / tokens - tokens / 2
        attention = self.attention.seconds(tokens, max(past, 0.0), rows, context / rows if rows else 0.0)
        if past < 0:
            alone = self.attention.seconds(tokens, 0.0, 0, 0)
            attention -= alone * (1 - pairs / (tokens * tokens / 2))
        return self._others(rows + tokens, sampled) + self.layers * attention

    def _others(self, tokens: int, sampled: int) -> float:
        head = self.head.line(sampled).seconds if sampled else 0.0
        return self.overhead + self.dense.line(tokens).seconds + head


def read_layers(folder: Path, layers: int, overhead: float = 0.0) -> Layers:
    """From the three tables of a folder. Raises ConfigError naming the file."""
    dense: dict[int, float] = defaultdict(float)
    for row in _rows(folder / "dense.csv"):
        times = 1 if row["layer"] in ONCE else layers * (2 if row["layer"] in TWICE else 1)
        dense[int(row["tokens"])] += times * float(row["time_us"]) * MICROSECOND
    head: dict[int, float] = defaultdict(float)
    for row in _rows(folder / "per_sequence.csv"):
        head[int(row["sequences"])] += float(row["time_us"]) * MICROSECOND
    lengths = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    points = {
        (int(row[a]), int(row[b]), int(row[c]), int(row[d])): float(row["time_us"]) * MICROSECOND
        for a, b, c, d in [lengths]
        for row in _rows(folder / "attention.csv")
    }
    return Layers(
        folder.name,
        layers,
        Curve.through([*dense.items()]),
        Curve.through([*head.items()]),
        Attention(points, _skews(folder / "skew_fit.csv")),
        overhead,
    )


def _skews(path: Path) -> dict[int, float]:
    """Median alpha of steps that only decode contexts of up to 4k, by the most rows; none where it was not measured."""
    meta = read_data(path.parent.parent / "meta.yaml", "meta.yaml")
    if not meta.get("skew_fit", {}).get("enabled"):
        return {}
    found: dict[int, list[float]] = defaultdict(list)
    for row in _rows(path):
        label = row["n_label"].removeprefix("n<=")
        if row["pc"] == "0" and label.isdigit() and row["kv_big_label"] == "kvB<=4k":
            found[int(label)].append(float(row["alpha"]))
    return {most: median(alphas) for most, alphas in found.items()}


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; a table of measured layers") from None
