"""Operators as they were measured on GPUs: matrix products, attention, all-reduces and sparse experts, interpolated.

The tables are those of the package aiconfigurator-core (Apache-2.0): one Parquet file per kind of operator, system and
serving framework, in milliseconds. Between measured sizes matrix products keep the share of the roofline that their
neighbours reach; decode attention is linear in rows and context, prefill attention in their logarithms.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from octavo.profiles.errors import ConfigError, MachineError
from octavo.profiles.quantity import Precision
from octavo.profiles.read import read_data
from octavo.simulator.estimate import Floats
from octavo.simulator.latency.table import Curve

MILLISECOND = 1e-3
FRAMEWORKS = ("vllm", "trtllm", "sglang")
SYSTEMS = {
    "a100-80": "a100_sxm",
    "b200": "b200_sxm",
    "gb200": "gb200",
    "h100-sxm": "h100_sxm",
    "h200": "h200_sxm",
    "l40s": "l40s",
    "rtx-pro-6000": "rtx_pro_6000_server",
    "rtx-pro-6000-server": "rtx_pro_6000_server",
}
"""The package's name of a hardware profile."""
PRODUCTS: dict[Precision, tuple[str, ...]] = {
    "bf16": ("bfloat16",),
    "fp16": ("bfloat16",),
    "fp8": ("fp8", "fp8_block"),
    "fp4": ("nvfp4",),
    "int8": ("int8_wo",),
    "int4": ("int4_wo",),
}
"""What the tables call a matrix product by the precision of its weights, in order of preference."""
BLOCKS = ("fp8_block", "fp8")
"""The same of fp8 weights that are scaled block by block."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Measured seconds over rows (first axis) and tokens of each (second); no cell is empty."""

    rows: tuple[float, ...]
    tokens: tuple[float, ...]
    seconds: Floats

    def over_context(self, rows: int) -> Curve:
        """Of decode steps of so many rows, over the context of all of them together."""
        low, high, share = _between(self.rows, rows)
        line = (1 - share) * self.seconds[low] + share * self.seconds[high]
        if rows > self.rows[-1]:
            line = self.seconds[-1] * rows / self.rows[-1]
        return Curve.through([(rows * each, float(s)) for each, s in zip(self.tokens, line, strict=True)])

    def at(self, rows: float, tokens: float) -> float:
        """Linear in logarithms, as work is a product of powers."""
        i, j, a = _between(self.rows, rows, logs=True)
        k, m, b = _between(self.tokens, tokens, logs=True)
        logs = np.log(self.seconds[np.ix_((i, j), (k, m))])
        return float(np.exp(np.array([1 - a, a]) @ logs @ np.array([1 - b, b])))


def _between(axis: tuple[float, ...], x: float, *, logs: bool = False) -> tuple[int, int, float]:
    """The neighbours of x and its place between them; beyond the last it goes on, below the first it stays."""
    if len(axis) == 1 or x <= axis[0]:
        return 0, 0, 0.0
    high = min(bisect_right(axis, x), len(axis) - 1)
    a, b = axis[high - 1], axis[high]
    share = log(x / a) / log(b / a) if logs else (x - a) / (b - a)
    return high - 1, high, share if logs else min(share, 1.0)


@dataclass(frozen=True)
class Operators:
    """The measured operators of one system under one framework."""

    system: str
    framework: str

    def product(
        self, precision: Precision, n: int, k: int, *, quantised: bool = False, block_scales: bool = False
    ) -> Curve:
        """Seconds of (m x k) times (k x n) over m, by the fastest kernel of any framework; a larger m is never faster.

        Frameworks choose among the same kernels, other ones in each version. An fp8 product was measured with finding
        the scale of its input and applying it: checkpoints bring the scales with them, and an input that comes out of a
        fused kernel (`quantised`) has them applied. With `block_scales` weights are scaled block by block, which needs
        other kernels, and the scales of an input are found in every step.
        """
        found = [
            curve
            for framework in FRAMEWORKS
            if (curve := Operators(self.system, framework)._own_product(precision, n, k, quantised, block_scales))
        ]
        if not found:
            raise ConfigError(f"silicon: no {precision} matrix product was measured on {self.system}")
        return _fastest(found)

    def _own_product(self, precision: Precision, n: int, k: int, quantised: bool, block_scales: bool) -> Curve | None:
        path = _newest(self.system, "gemm", self.framework, "gemm_perf")
        known = BLOCKS if precision == "fp8" and block_scales else PRODUCTS.get(precision, ())
        kind = next((kind for kind in known if kind in _kinds(path)), None)
        if kind is None:
            return None
        table = _products(path, kind, self._peak(kind), self._bandwidth)
        points = []
        for m, share in zip(table.ms, _among(table.shares, table.ns, table.ks, n, k), strict=True):
            ideal = _ideal(kind, m, n, k, self._peak(kind), self._bandwidth)
            points.append((m, max(float(ideal) / share - self._spared(kind, m, k, quantised), float(ideal))))
        return _rising(points)

    def _spared(self, kind: str, m: float, k: int, quantised: bool) -> float:
        """Seconds of the measured product that serving does not take."""
        if kind != "fp8":
            return 0.0
        names = ("computescale_perf", "scale_matrix_perf")[: 1 + quantised]
        return sum(_quantise(_newest(self.system, "quantize", self.framework, name)).at(m, k) for name in names)

    def decode_attention(self, heads: int, kv_heads: int, dim: int, kv: Precision) -> Grid:
        """Of one layer, one new token per row."""
        return self._attention("generation", "step", heads, kv_heads, dim, kv)

    def prefill_attention(self, heads: int, kv_heads: int, dim: int, kv: Precision) -> Grid:
        """Of one layer, whole prompts."""
        return self._attention("context", "isl", heads, kv_heads, dim, kv)

    def all_reduce(self, devices: int) -> Curve:
        """Seconds over the bytes that every one of so many devices holds."""
        table = self._table("comm", "custom_allreduce_perf")
        graphs = np.array(["eager" not in kernel for kernel in table["kernel_source"]])
        chosen = graphs & (np.array(table["num_gpus"]) == devices)
        if not chosen.any():
            raise ConfigError(f"silicon: no all-reduce of {devices} devices was measured on {self.system}")
        sizes, seconds = (np.array(table[name])[chosen] for name in ("message_size", "latency"))
        return _rising([(2.0 * size, s * MILLISECOND) for size, s in zip(sizes, seconds, strict=True)])

    def experts(self, precision: Precision, hidden: int, width: int, active: int, experts: int, shards: int) -> Curve:
        """Seconds of one sparse layer's experts over the tokens of a step."""
        table = self._table("moe", "moe_perf")
        asked = {"hidden_size": hidden, "inter_size": width, "topk": active, "num_experts": experts}
        asked |= {"moe_tp_size": shards, "moe_ep_size": 1}
        chosen = np.all([np.array(table[name]) == value for name, value in asked.items()], axis=0)
        kinds = [kind for kind in PRODUCTS.get(precision, ()) if kind in set(np.array(table["moe_dtype"])[chosen])]
        if not kinds:
            shape = ", ".join(f"{name} {value}" for name, value in asked.items())
            raise ConfigError(f"silicon: no sparse layer of {precision}, {shape} was measured on {self.system}")
        chosen &= np.array(table["moe_dtype"]) == kinds[0]
        uneven = chosen & (np.array(table["distribution"]) == "power_law_1.2")
        chosen = uneven if uneven.any() else chosen
        tokens, seconds = (np.array(table[name])[chosen] for name in ("num_tokens", "latency"))
        return _rising([(float(t), s * MILLISECOND) for t, s in zip(tokens, seconds, strict=True)])

    def passing(self, moved: float) -> float:
        """Seconds of what only reads and writes so many bytes, such as a norm: the package's own constants."""
        gpu = self._facts["gpu"]
        return float(
            moved / (gpu["mem_bw"] * gpu["mem_bw_empirical_scaling_factor"]) + gpu["mem_empirical_constant_latency"]
        )

    def hop(self, moved: float) -> float:
        """Seconds in which one device hands so many bytes to the next."""
        node = self._facts["node"]
        return float(node["p2p_latency"] + moved / node["intra_node_bw"])

    @property
    def _facts(self) -> Mapping[str, Any]:
        return _system(self.system)

    @property
    def _bandwidth(self) -> float:
        return float(self._facts["gpu"]["mem_bw"])

    def _peak(self, kind: str) -> float:
        gpu, half = self._facts["gpu"], float(self._facts["gpu"]["bfloat16_tc_flops"])
        return float(gpu.get(f"{_UNITS[kind]}_tc_flops", half))

    def _table(self, family: str, name: str) -> dict[str, list[Any]]:
        return _read(_newest(self.system, family, self.framework, name))

    def _attention(self, phase: str, length: str, heads: int, kv_heads: int, dim: int, kv: Precision) -> Grid:
        table = self._table("attention", f"{phase}_attention_perf")
        columns = {name: np.array(values) for name, values in table.items()}
        cache_kind = "fp8" if kv in ("fp8", "int8") else "bfloat16"
        chosen = (columns["head_dim"] == dim) & (columns["kv_cache_dtype"] == cache_kind)
        chosen &= columns["attn_dtype"] == "bfloat16"
        if "window_size" in columns:
            chosen &= columns["window_size"] == 0
        if not chosen.any():
            raise ConfigError(
                f"silicon: no attention of head dimension {dim} with {kv} keys and values was measured on {self.system}"
            )
        shapes = {(int(h), int(g)) for h, g in zip(*(columns[c][chosen] for c in _HEADS), strict=True)}
        near = min(shapes, key=lambda shape: (_apart(shape, heads, kv_heads), shape))
        chosen &= (columns["num_heads"] == near[0]) & (columns["num_key_value_heads"] == near[1])
        # A decode step reads keys and values; a prefill computes for every head.
        factor = kv_heads / near[1] if phase == "generation" else heads / near[0]
        lengths = columns[length] + (columns["isl"] if length == "step" else 0)
        return _grid(columns["batch_size"][chosen], lengths[chosen], columns["latency"][chosen] * MILLISECOND * factor)


_HEADS = ("num_heads", "num_key_value_heads")
_BYTES = {"bfloat16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625, "int8_wo": 1.0, "int4_wo": 0.5}
_UNITS = {
    "bfloat16": "bfloat16",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "nvfp4": "fp4",
    "int8_wo": "bfloat16",
    "int4_wo": "bfloat16",
}


def _apart(shape: tuple[int, int], heads: int, kv_heads: int) -> float:
    return abs(log(shape[1] / kv_heads)) * 2 + abs(log(shape[0] / heads))


def _fastest(curves: list[Curve]) -> Curve:
    xs = sorted({x for curve in curves for x in curve.xs})
    return Curve(tuple(xs), tuple(min(curve.line(x).seconds for curve in curves) for x in xs))


def _rising(points: list[tuple[float, float]]) -> Curve:
    """Through the middle of what is measured, never falling: a kernel's favourite sizes are levelled both ways."""
    ordered = sorted(points)
    ys = np.array([y for _, y in ordered])
    middle = (np.maximum.accumulate(ys) + np.minimum.accumulate(ys[::-1])[::-1]) / 2
    return Curve.through([(x, float(y)) for (x, _), y in zip(ordered, middle, strict=True)])


def _grid(rows: Floats, tokens: Floats, seconds: Floats) -> Grid:
    """Cells that were too large to measure take as much longer than their neighbour as they have more tokens."""
    ys, xs = np.unique(rows), np.unique(tokens)
    found = np.full((len(ys), len(xs)), np.nan)
    found[np.searchsorted(ys, rows), np.searchsorted(xs, tokens)] = seconds
    for j in range(len(xs)):
        for i in range(len(ys)):
            if np.isnan(found[i, j]):
                found[i, j] = found[i - 1, j] * ys[i] / ys[i - 1] if i else found[i, j - 1] * xs[j] / xs[j - 1]
    found = np.maximum.accumulate(np.maximum.accumulate(found, axis=0), axis=1)
    return Grid(tuple(map(float, ys)), tuple(map(float, xs)), found)


@cache
def _quantise(path: Path) -> Grid:
    """Seconds over m and k."""
    table = _read(path)
    seconds = np.maximum(table["latency"], 1e-9) * MILLISECOND
    return _grid(table["m"], table["k"], seconds)


@dataclass(frozen=True, slots=True)
class _Products:
    """Shares of the roofline by m, n and k."""

    ms: tuple[float, ...]
    ns: tuple[float, ...]
    ks: tuple[float, ...]
    shares: Floats


@cache
def _products(path: Path, kind: str, peak: float, bandwidth: float) -> _Products:
    table = _read(path)
    chosen = np.array(table["gemm_dtype"]) == kind
    m, n, k = (np.array(table[name], dtype=float)[chosen] for name in ("m", "n", "k"))
    seconds = np.array(table["latency"], dtype=float)[chosen] * MILLISECOND
    ideal = _ideal(kind, m, n, k, peak, bandwidth)
    axes = [np.unique(each) for each in (m, n, k)]
    shares = np.full([len(axis) for axis in axes], np.nan)
    places = tuple(np.searchsorted(axis, each) for axis, each in zip(axes, (m, n, k), strict=True))
    shares[places] = ideal / seconds
    for axis in range(3):
        shares = _filled(shares, axis)
    ms, ns, ks = (tuple(map(float, axis)) for axis in axes)
    return _Products(ms, ns, ks, shares)


def _ideal(kind: str, m: Any, n: Any, k: Any, peak: float, bandwidth: float) -> Any:
    """Seconds of a product at the data sheet's peaks."""
    return np.maximum(2 * m * n * k / peak, (_BYTES[kind] * n * k + 2 * m * (n + k)) / bandwidth)


def _filled(cells: Floats, axis: int) -> Floats:
    """Empty cells take the value of the last full one before them along the axis."""
    moved = np.moveaxis(cells, axis, 0)
    for i in range(1, len(moved)):
        moved[i] = np.where(np.isnan(moved[i]), moved[i - 1], moved[i])
    return np.moveaxis(moved, 0, axis)


def _among(shares: Floats, ns: tuple[float, ...], ks: tuple[float, ...], n: int, k: int) -> Floats:
    """Shares of a product of any shape, over m: between its neighbours' in the logarithms of n and k."""
    i, j, a = _between(ns, n, logs=True)
    p, q, b = _between(ks, k, logs=True)
    a, b = min(a, 1.0), min(b, 1.0)
    low = (1 - b) * shares[:, i, p] + b * shares[:, i, q]
    high = (1 - b) * shares[:, j, p] + b * shares[:, j, q]
    return np.asarray((1 - a) * low + a * high)


def _root() -> Path:
    """Where the package keeps its tables; nothing of it is imported. Raises MachineError where it is missing."""
    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations or find_spec("pyarrow") is None:
        raise MachineError("latency: silicon needs its operator tables; pip install 'octavo[silicon]'")
    return Path(next(iter(spec.submodule_search_locations))) / "systems"


@cache
def _system(name: str) -> Mapping[str, Any]:
    return read_data(_root() / f"{name}.yaml", name)


def _newest(system: str, family: str, framework: str, name: str) -> Path:
    """The table of the newest version of the framework that has one."""
    found = [*(_root() / "data" / system / family / framework).glob(f"*/{name}.parquet")]
    if not found:
        raise ConfigError(f"silicon: no {name} of {framework} was measured on {system}")
    return max(found, key=lambda path: _version(path.parent.name))


def _version(text: str) -> tuple[int, ...]:
    """1.3.0rc20 after 1.3.0rc9."""
    return tuple(map(int, re.findall(r"\d+", text)))


@cache
def _read(path: Path) -> dict[str, Any]:
    """Columns of a table as arrays."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}


@cache
def _kinds(path: Path) -> frozenset[str]:
    return frozenset(np.unique(_read(path)["gemm_dtype"].astype(str)).tolist())
