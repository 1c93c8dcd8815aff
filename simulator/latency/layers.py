"""Step times from measured layers: dense ones by tokens, the head by sequences, attention by its four lengths.

The tables are those of LLMServingSim 2.0: dense.csv, per_sequence.csv, attention.csv and, of sparse models, moe.csv in
microseconds, and skew_fit.csv for contexts of unequal length. A step is every layer's dense parts and attention, what
tensor-parallel devices exchange, then the head and the sampler for the rows that are sampled.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from octavo.profiles.errors import ConfigError
from octavo.profiles.model import Model
from octavo.runtime.core.scheduler import Chunk
from octavo.simulator.lane import Lane
from octavo.simulator.latency.attention import Attention, Prefill, Tree, interpolated
from octavo.simulator.latency.exchange import Exchange
from octavo.simulator.latency.model import Band, Line
from octavo.simulator.latency.read_skew import read_skew
from octavo.simulator.latency.skew import Batch, Skew, Spread, Unequal
from octavo.simulator.latency.table import Curve

MICROSECOND = 1e-6
ONCE = ("embedding", "final_layernorm")
EVERY = {"layernorm": 2, "qkv_proj": 1, "qk_norm": 1, "rotary_emb": 1, "o_proj": 1}
"""How often a layer runs what is in the table, whatever its feed-forward block is."""
BLOCK = ("gate_up_proj", "act_fn", "down_proj")
"""The feed-forward block of the layers that are not sparse."""
SAMPLED = ("lm_head", "sampler")

EQUAL = Skew()
Rows = list[dict[str, str]]


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
    skew: Unequal = EQUAL
    experts: Callable[[int], float] | None = None
    exchange: Exchange | None = None
    overhead: float = 0.0
    batch: Batch | None = None
    _curves: dict[int, Curve] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"measured layers of {self.name}"

    @property
    def band(self) -> Band:
        return Band(0.05, 0.05)

    def on(self, lane: Lane) -> Layers:
        """The same for the batch of a lane."""
        return replace(self, batch=Batch(lane))

    def decode(self, rows: int, context: int) -> Line:
        curve = self._curves.get(rows)
        if curve is None:
            curve = self._curves[rows] = self.attention.over_context(rows)
        line, fixed, layers = curve.line(context), self._others(rows, rows), self.layers
        # The bucket is that of the batch when its rows came together, so that time goes on without a jump.
        spread = self._spread(rows)
        alpha = self._alpha(Prefill(), rows, spread)
        if not alpha:
            return Line(fixed + layers * line.seconds, layers * line.slope, line.until)
        further = rows * spread.above
        longest = curve.line(context + further)
        seconds = (1 - alpha) * line.seconds + alpha * longest.seconds
        slope = (1 - alpha) * line.slope + alpha * longest.slope
        return Line(fixed + layers * seconds, layers * slope, min(line.until, longest.until - further))

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        prefill = Prefill(
            sum(chunk.tokens for chunk in chunks),
            sum(chunk.tokens * (chunk.start + chunk.tokens / 2) for chunk in chunks),
        )
        sampled = rows + sum(chunk.completes for chunk in chunks)
        attention = self._attention(prefill, rows, context / rows if rows else 0.0)
        return self._others(rows + prefill.tokens, sampled) + self.layers * attention

    def _attention(self, prefill: Prefill, rows: int, mean: float) -> float:
        """Of one layer, rows of unequal context counted."""
        seconds, spread = self.attention.seconds(prefill, rows, mean), self._spread(rows)
        alpha = self._alpha(prefill, rows, spread)
        if not alpha:
            return seconds
        return seconds + alpha * max(self.attention.seconds(prefill, rows, mean + spread.above) - seconds, 0.0)

    def _spread(self, rows: int) -> Spread:
        return self.batch.spread() if self.batch and rows else Spread()

    def _alpha(self, prefill: Prefill, rows: int, spread: Spread) -> float:
        """How far a step is on the way from equal rows to rows that are all as long as the longest."""

        def gap() -> float:
            equal, longest = (self.attention.seconds(prefill, rows, at) for at in (spread.mean, spread.longest))
            return longest / equal - 1

        return self.skew.alpha(prefill.tokens, max(prefill.past, 0.0), rows, spread, gap)

    def _others(self, tokens: int, sampled: int) -> float:
        """Seconds of a step without its attention."""
        found = self.overhead + self.dense.line(tokens).seconds
        found += self.head.line(sampled).seconds if sampled else 0.0
        found += self.experts(tokens) if self.experts else 0.0
        return found + (self.exchange(tokens, sampled) if self.exchange else 0.0)


def read_layers(
    folder: Path, model: Model, shards: int = 1, exchange: Exchange | None = None, overhead: float = 0.0
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
    times = {name: model.layers * count for name, count in EVERY.items()} | dict.fromkeys(ONCE, 1)
    times |= dict.fromkeys(BLOCK, model.layers - model.sparse_layers)
    needed = ["qkv_proj", "o_proj", *(("gate_up_proj", "down_proj") if model.layers > model.sparse_layers else ())]
    return Layers(
        "/".join(at.parts[-4:]),
        model.layers,
        _summed(at / "dense.csv", "tokens", times, needed),
        _summed(at / "per_sequence.csv", "sequences", dict.fromkeys(SAMPLED, 1), ["lm_head"]),
        _attention(at / "attention.csv"),
        read_skew(at),
        _experts(at, model, shards),
        exchange,
        overhead,
    )


def _attention(path: Path) -> Attention:
    """Of rows that decode one token each; a table is by what tokens attend to, or by what was computed before them."""
    rows = _rows(path, "prefill_chunk", "n_decode", "kv_decode", "time_us")
    second = "prefill_key" if "prefill_key" in rows[0] else "kv_prefill"
    points: dict[tuple[float, float, int, int], float] = {}
    for row in _checked(path, rows, second):
        if (kernel := row.get("layer", "attention")) != "attention":
            raise ConfigError(f"{path}: attention of kind {kernel} is not supported")
        if row.get("decode_q_len", "1") == "1":
            key = (int(row["prefill_chunk"]), float(row[second]), int(row["n_decode"]), int(row["kv_decode"]))
            points[key] = float(row["time_us"]) * MICROSECOND
    if (0, 0.0) not in {key[:2] for key in points}:
        raise ConfigError(f"{path}: no steps that decode alone (prefill_chunk 0) were measured")
    return Attention(points, keyed=second == "prefill_key")


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


def _experts(folder: Path, model: Model, shards: int, spread: int = 1) -> Callable[[int], float] | None:
    """Of all sparse layers over a step's tokens, which visit as many experts as when all are equally likely.

    Newer tables say over how many devices a layer's experts are `spread` (`ep`); without it they are on one.
    """
    path = folder / "moe.csv"
    if (moe := model.moe) is None:
        if path.exists():
            raise ConfigError(f"{path}: {model.name} has no sparse layers; is this the folder of this model?")
        return None
    if shards > 1:
        raise ConfigError(f"{folder}: sparse layers were measured on one device, not on {shards}")
    tree: Tree = {}
    rows = [r for r in _rows(path, "tokens", "activated_experts", "time_us") if r.get("ep", "1") == str(spread)]
    if not rows:
        raise ConfigError(f"{path}: experts spread over {spread} devices (ep) were not measured")
    for row in rows:
        seconds = float(row["time_us"]) * MICROSECOND
        tree.setdefault(int(row["activated_experts"]), {})[int(row["tokens"])] = seconds
    ordered = {visited: dict(sorted(tree[visited].items())) for visited in sorted(tree)}
    layers, experts, missed = model.sparse_layers, moe.experts, 1 - moe.active / moe.experts
    return lambda tokens: layers * interpolated(ordered, (experts * (1 - missed**tokens), tokens))


def _rows(path: Path, *columns: str) -> Rows:
    """The lines of a table that has at least these columns, the numbers in it checked."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; a table of measured layers") from None
    if not rows:
        raise ConfigError(f"{path}: no lines; a table of measured layers")
    return _checked(path, rows, *columns)


def _checked(path: Path, rows: Rows, *columns: str) -> Rows:
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
