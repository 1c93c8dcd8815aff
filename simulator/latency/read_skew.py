"""Reads what was measured of unequal rows beside the layer tables of one degree of tensor parallelism."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.read import read_data
from octavo.simulator.latency.lever import Lever
from octavo.simulator.latency.skew import Axis, Bucket, Skew, Unequal

KERNEL = "attention|q=1"
"""Of one attention kernel in all layers, one token for each row that decodes."""


def read_skew(folder: Path) -> Unequal:
    """Of a folder `tp1`; none where it was not fitted on this device. Raises ConfigError naming the file."""
    meta_path, path = folder.parent / "meta.yaml", folder / "skew_fit.csv"
    fit = read_data(meta_path, str(meta_path)).get("skew_fit") or {}
    if not fit.get("enabled"):
        return Skew()
    each = {str(key): value for key, value in (fit.get("per_tp") or {}).items()}
    found: dict[str, Any] = each.get(folder.name.removeprefix("tp"), {})
    try:
        if "schema" in found:
            return _lever(path, found)
        usual = float(found.get("alpha_default", fit.get("alpha_default", 0.0)))
        bins = found.get("bucket_axes") or fit.get("bucket_axes")
        if bins is None or not path.is_file():
            return Skew(usual)
        return Skew(usual, {name: _axis(bins, name) for name in ("n", "skew_rate", "kv_big", "kp")}, _alphas(path))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"{meta_path}: skew_fit and {path.name} do not fit together ({error!r})") from None


def _axis(bins: Mapping[str, Any], name: str) -> Axis:
    return Axis(tuple(map(float, bins[f"{name}_bins"][1:-1])), tuple(bins[f"{name}_labels"]))


def _alphas(path: Path) -> dict[int, dict[Bucket, float]]:
    found: dict[int, dict[Bucket, float]] = {}
    for row in _lines(path):
        if row.get("layer", "attention") == "attention":
            bucket = row["n_label"], row["skew_rate_label"], row["kv_big_label"], row["kp_label"]
            found.setdefault(int(row["pc"]), {})[bucket] = float(row["alpha"])
    return found


def _lever(path: Path, fit: Mapping[str, Any]) -> Lever:
    """`fit` is what meta.yaml says of one degree."""
    cells: dict[tuple[str, str], dict[int, float]] = {}
    for row in _lines(path):
        if f"{row['layer']}|q={row['decode_q_len']}" == KERNEL:
            cells.setdefault((row["pc_label"], row["lev_label"]), {})[int(row["n_anchor"])] = float(row["alpha"])
    alphas = {label: (tuple(sorted(cell)), tuple(cell[n] for n in sorted(cell))) for label, cell in cells.items()}
    low, high = fit["n_range_by_kernel"][KERNEL]
    usual = float(fit["alpha_default_by_kernel"][KERNEL])
    return Lever(usual, (int(low), int(high)), _axis(fit["axes"], "pc"), _axis(fit["axes"], "lev"), alphas)


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
