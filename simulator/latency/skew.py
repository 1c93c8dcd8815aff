"""What rows of unequal context take beyond equal ones: a share of the way to rows all as long as the longest.

LLMServingSim 2.0 measures it: t = t(mean) + alpha (t(longest) - t(mean)), alpha by bucket of prefill tokens, rows, how
many rows are long, the longest context, and what the prefill attends to (skew_fit.csv, axes in meta.yaml).
"""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log1p
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.read import read_data
from octavo.simulator.lane import Lane

Bucket = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Axis:
    """Bins by their upper edges, the last without one, and the label of each."""

    edges: tuple[float, ...]
    labels: tuple[str, ...]

    def label(self, value: float) -> str:
        return self.labels[min(bisect_left(self.edges, value), len(self.labels) - 1)]


@dataclass(frozen=True, slots=True)
class Skew:
    """Alpha of a batch; `usual` where no bucket of its kind was measured, and nothing where no skew was."""

    usual: float = 0.0
    axes: Mapping[str, Axis] = field(default_factory=dict)
    alphas: Mapping[int, Mapping[Bucket, float]] = field(default_factory=dict)

    def alpha(self, chunk: float, past: float, rows: int, spread: Spread) -> float:
        """Of `rows` that decode contexts of this spread, beside a prefill of `chunk` tokens after `past`.

        Prefills were measured at a few sizes: the nearest on a scale of ratios counts.
        """
        if rows < 2 or spread.above <= 0:
            return 0.0
        if not self.alphas:
            return max(self.usual, 0.0)
        size = min(self.alphas, key=lambda measured: abs(log1p(measured) - log1p(chunk)))
        bucket = (
            self.axes["n"].label(rows),
            self.axes["skew_rate"].label(spread.share),
            self.axes["kv_big"].label(spread.longest),
            self.axes["kp"].label(past),
        )
        return max(self.alphas[size].get(bucket, self.usual), 0.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """The shortest, mean and longest context of a batch when its rows came together."""

    shortest: float = 0.0
    mean: float = 0.0
    longest: float = 0.0

    @property
    def above(self) -> float:
        return self.longest - self.mean

    @property
    def share(self) -> float:
        """Of rows that are long, if some were as the shortest and the others as the longest."""
        return (self.mean - self.shortest) / (self.longest - self.shortest)


class Batch:
    """The rows that decode on a lane. All advance together, so their spread holds until one comes or goes."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._seen: tuple[int, int, int] | None = None
        self._spread = Spread()

    def spread(self) -> Spread:
        scheduler = self._lane.scheduler
        now = id(scheduler), scheduler.clock, len(scheduler.decoding)
        if now != self._seen:
            lengths = [job.length_at(scheduler.clock) for job in scheduler.decoding]
            self._spread = Spread(min(lengths), sum(lengths) / len(lengths), max(lengths)) if lengths else Spread()
            self._seen = now
        return self._spread


def read_skew(folder: Path) -> Skew:
    """Of one degree of tensor parallelism (a folder `tp1`); none where it was not fitted on this device."""
    meta_path = folder.parent / "meta.yaml"
    fit = read_data(meta_path, str(meta_path)).get("skew_fit") or {}
    if not fit.get("enabled"):
        return Skew()
    degree = folder.name.removeprefix("tp")
    each = {str(key): value for key, value in (fit.get("per_tp") or {}).items()}
    found: dict[str, Any] = each.get(degree, {})
    bins = found.get("bucket_axes") or fit.get("bucket_axes")
    path = folder / "skew_fit.csv"
    try:
        usual = float(found.get("alpha_default", fit.get("alpha_default", 0.0)))
        if bins is None or not path.is_file():
            return Skew(usual)
        axes = {
            name: Axis(tuple(map(float, bins[f"{name}_bins"][1:-1])), tuple(bins[f"{name}_labels"]))
            for name in ("n", "skew_rate", "kv_big", "kp")
        }
        return Skew(usual, axes, _alphas(path))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{meta_path}: skew_fit and {path.name} do not fit together ({error!r})") from None


def _alphas(path: Path) -> dict[int, dict[Bucket, float]]:
    found: dict[int, dict[Bucket, float]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row.get("layer", "attention") == "attention":
                bucket = row["n_label"], row["skew_rate_label"], row["kv_big_label"], row["kp_label"]
                found.setdefault(int(row["pc"]), {})[bucket] = float(row["alpha"])
    return found
