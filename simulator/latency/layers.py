"""Step times from measured layers: dense ones by tokens, the head by sequences, attention by its four lengths.

The tables are those of LLMServingSim 2.0: dense.csv, per_sequence.csv, attention.csv and, of sparse models, moe.csv in
microseconds, and skew_fit.csv for contexts of unequal length. A step is every layer's dense parts and attention, what
tensor-parallel devices exchange, then the head and the sampler for the rows that are sampled.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.model import Model
from octavo.runtime.core.scheduler import Chunk
from octavo.simulator.lane import Lane
from octavo.simulator.latency.model import Line
from octavo.simulator.latency.skew import Batch, Skew, Spread, read_skew
from octavo.simulator.latency.table import Curve

MICROSECOND = 1e-6
ONCE = ("embedding", "final_layernorm")
EVERY = {"layernorm": 2, "qkv_proj": 1, "qk_norm": 1, "rotary_emb": 1, "o_proj": 1}
"""How often a layer runs what is in the table, whatever its feed-forward block is."""
BLOCK = ("gate_up_proj", "act_fn", "down_proj")
"""The feed-forward block of the layers that are not sparse."""
SAMPLED = ("lm_head", "sampler")

EQUAL = Skew()
Tree = dict[int, Any]
Rows = list[dict[str, str]]


class Attention:
    """Seconds of one layer's attention by prefill tokens, their KV, decoding rows and mean KV of each.

    Linear along each length in turn; every measured value of one has its own grid of the next, so that grids differ.
    """

    def __init__(self, points: Mapping[tuple[int, int, int, int], float]) -> None:
        self._tree: Tree = {}
        for (chunk, past, rows, context), seconds in sorted(points.items()):
            under = self._tree.setdefault(chunk, {}).setdefault(past, {}).setdefault(rows, {})
            under[context] = seconds

    def seconds(self, chunk: float, past: float, rows: float, context: float) -> float:
        """Of a step that prefills `chunk` tokens after `past` and decodes `rows` of `context` each."""
        return _interpolated(self._tree, (chunk, past, rows, context))

    def over_context(self, rows: float) -> Curve:
        """Of decode steps, over the context of all rows together."""
        contexts = sorted({context for under in self._tree[0][0].values() for context in under})
        return Curve.through([(rows * value, self.seconds(0, 0, rows, value)) for value in contexts])


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
    """A model of so many layers; `overhead` is the host's, per step, and `exchange` what shards take over tokens.

    On a lane (`on`) it knows how unequal the contexts of the batch are; by itself it takes them to be equal.
    """

    name: str
    layers: int
    dense: Curve
    head: Curve
    attention: Attention
    skew: Skew = EQUAL
    experts: Callable[[int], float] | None = None
    exchange: Callable[[int], float] | None = None
    overhead: float = 0.0
    batch: Batch | None = None
    _curves: dict[int, Curve] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"measured layers of {self.name}"

    @property
    def band(self) -> float:
        return 0.05

    def on(self, lane: Lane) -> Layers:
        """The same for the batch of a lane."""
        return replace(self, batch=Batch(lane))

    def decode(self, rows: int, context: int) -> Line:
        curve = self._curves.get(rows)
        if curve is None:
            curve = self._curves[rows] = self.attention.over_context(rows)
        line, fixed, layers = curve.line(context), self._others(rows, rows), self.layers
        spread = self.batch.spread() if self.batch else Spread()
        # The bucket is that of the batch when its rows came together, so that time goes on without a jump.
        alpha = self.skew.alpha(0, 0, rows, spread)
        if not alpha:
            return Line(fixed + layers * line.seconds, layers * line.slope, line.until)
        further = rows * spread.above
        longest = curve.line(context + further)
        seconds = (1 - alpha) * line.seconds + alpha * longest.seconds
        slope = (1 - alpha) * line.slope + alpha * longest.slope
        return Line(fixed + layers * seconds, layers * slope, min(line.until, longest.until - further))

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        tokens = sum(chunk.tokens for chunk in chunks)
        sampled = rows + sum(chunk.completes for chunk in chunks)
        pairs = sum(chunk.tokens * (chunk.start + chunk.tokens / 2) for chunk in chunks)
        # Several prompts in one step are as much work as one chunk that attends to as many pairs of tokens.
        past = pairs / tokens - tokens / 2
        attention = self._attention(tokens, max(past, 0.0), rows, context / rows if rows else 0.0)
        if past < 0:
            alone = self.attention.seconds(tokens, 0.0, 0, 0)
            attention -= alone * (1 - pairs / (tokens * tokens / 2))
        return self._others(rows + tokens, sampled) + self.layers * attention

    def _attention(self, tokens: int, past: float, rows: int, mean: float) -> float:
        """Of one layer, rows of unequal context counted."""
        seconds = self.attention.seconds(tokens, past, rows, mean)
        spread = self.batch.spread() if self.batch and rows else Spread()
        alpha = self.skew.alpha(tokens, past, rows, spread)
        if not alpha:
            return seconds
        return seconds + alpha * max(self.attention.seconds(tokens, past, rows, mean + spread.above) - seconds, 0.0)

    def _others(self, tokens: int, sampled: int) -> float:
        """Seconds of a step without its attention."""
        found = self.overhead + self.dense.line(tokens).seconds
        found += self.head.line(sampled).seconds if sampled else 0.0
        found += self.experts(tokens) if self.experts else 0.0
        return found + (self.exchange(tokens) if self.exchange else 0.0)


def read_layers(
    folder: Path, model: Model, shards: int = 1, exchange: Callable[[int], float] | None = None, overhead: float = 0.0
) -> Layers:
    """From the tables of a folder, or of its `tp1`, `tp2`, ... by `shards`. Raises ConfigError naming the file.

    What the tables do not hold is refused: other attention than one kernel of all layers, and layers of other names.
    """
    inside = folder / f"tp{shards}"
    at = inside if inside.is_dir() else folder
    if at.name.startswith("tp") and at.name != f"tp{shards}":
        raise ConfigError(f"{folder}: measured on {at.name.removeprefix('tp')} devices, not on {shards}")
    if (at / "linear_attention.csv").exists():
        raise ConfigError(f"{at / 'linear_attention.csv'}: layers of linear attention are not supported")
    points = {}
    for row in _rows(at / "attention.csv", "prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"):
        if (kernel := row.get("layer", "attention")) != "attention":
            raise ConfigError(f"{at / 'attention.csv'}: attention of kind {kernel} is not supported")
        key = (int(row["prefill_chunk"]), int(row["kv_prefill"]), int(row["n_decode"]), int(row["kv_decode"]))
        points[key] = float(row["time_us"]) * MICROSECOND
    times = {name: model.layers * count for name, count in EVERY.items()} | dict.fromkeys(ONCE, 1)
    times |= dict.fromkeys(BLOCK, model.layers - model.sparse_layers)
    needed = ["qkv_proj", "o_proj", *(("gate_up_proj", "down_proj") if model.layers > model.sparse_layers else ())]
    return Layers(
        "/".join(at.parts[-4:]),
        model.layers,
        _summed(at / "dense.csv", "tokens", times, needed),
        _summed(at / "per_sequence.csv", "sequences", dict.fromkeys(SAMPLED, 1), ["lm_head"]),
        Attention(points),
        read_skew(at),
        _experts(at, model, shards),
        exchange,
        overhead,
    )


def _summed(path: Path, axis: str, times: Mapping[str, int], needed: Sequence[str]) -> Curve:
    """Seconds of a step over tokens or sequences: every layer of the table so many times."""
    each: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in _rows(path, "layer", axis, "time_us"):
        if row["layer"] not in times:
            raise ConfigError(f"{path}: layer {row['layer']} is not known; there are {', '.join(times)}")
        each[row["layer"]].append((float(row[axis]), float(row["time_us"]) * MICROSECOND))
    if missing := [name for name in needed if name not in each]:
        raise ConfigError(f"{path}: {missing[0]} was not measured; is this the folder of this model?")
    curves = [(times[name], Curve.through(points)) for name, points in each.items()]
    xs = sorted({x for _, curve in curves for x in curve.xs})
    return Curve.through([(x, sum(count * curve.line(x).seconds for count, curve in curves)) for x in xs])


def _experts(folder: Path, model: Model, shards: int) -> Callable[[int], float] | None:
    """Of all sparse layers over a step's tokens, which visit as many experts as when all are equally likely."""
    path = folder / "moe.csv"
    if (moe := model.moe) is None:
        if path.exists():
            raise ConfigError(f"{path}: {model.name} has no sparse layers; is this the folder of this model?")
        return None
    if shards > 1:
        raise ConfigError(f"{folder}: sparse layers were measured on one device, not on {shards}")
    tree: Tree = {}
    for row in _rows(path, "tokens", "activated_experts", "time_us"):
        seconds = float(row["time_us"]) * MICROSECOND
        tree.setdefault(int(row["activated_experts"]), {})[int(row["tokens"])] = seconds
    ordered = {visited: dict(sorted(tree[visited].items())) for visited in sorted(tree)}
    layers, experts, missed = model.sparse_layers, moe.experts, 1 - moe.active / moe.experts
    return lambda tokens: layers * _interpolated(ordered, (experts * (1 - missed**tokens), tokens))


def _rows(path: Path, *columns: str) -> Rows:
    """The lines of a table that has at least these columns, the numbers in it checked."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; a table of measured layers") from None
    if not rows:
        raise ConfigError(f"{path}: no lines; a table of measured layers")
    for number, row in enumerate(rows, 2):
        for column in columns:
            if column != "layer" and not _is_number(row.get(column)):
                raise ConfigError(f"{path}:{number}: {column} must be a number from 0, got {row.get(column)!r}")
    return rows


def _is_number(text: str | None) -> bool:
    try:
        return 0 <= float(text or "") < float("inf")
    except ValueError:
        return False
