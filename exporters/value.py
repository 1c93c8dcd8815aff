"""The value model's place in a bundle: its calibration and its manifest entry."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from octavo.exporters.checkpoint import Array, Checkpoint, Tensor, read_json, stored_tensors
from octavo.exporters.outputs import VALUE_HEAD
from octavo.profiles.errors import BundleError

CALIBRATION_NAME = "calibration.json"


HEAD_NAME = "value_head.safetensors"


def is_head(folder: Path) -> bool:
    """Whether a value folder holds no model, but a head that reads the experts' own last hidden state."""
    return (folder / HEAD_NAME).is_file()


def with_head(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """An expert and the value head [1, hidden_size] that reads it. Raises BundleError when the head does not fit."""
    tensors = stored_tensors(folder / HEAD_NAME)
    expected = (1, checkpoint.config.get("hidden_size"))
    if set(tensors) != {"weight"} or tensors["weight"].shape != expected:
        found = {name: tensor.shape for name, tensor in tensors.items()}
        raise BundleError(f"{folder / HEAD_NAME}: one tensor `weight` of {expected} is expected, got {found}")
    judged: dict[str, Tensor] = checkpoint.tensors | {f"{VALUE_HEAD}.weight": tensors["weight"]}
    return replace(checkpoint, tensors=judged)


def platt(logits: Array, right: Array, steps: int = 50) -> tuple[float, float]:
    """Scale and shift for which sigmoid(scale * logit + shift) is most likely, by Newton's method.

    `logits` and `right` (0 or 1) are of held-out candidates, [n]; targets are smoothed as Platt proposed.
    """
    x = np.stack([logits.astype(np.float64), np.ones(len(logits))])
    many, few = right.sum(), (1 - right).sum()
    target = np.where(right > 0, (many + 1) / (many + 2), 1 / (few + 2))
    line = np.zeros(2)
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-(line @ x)))
        curvature = (x * chance * (1 - chance)) @ x.T + 1e-9 * np.eye(2)
        line -= np.linalg.solve(curvature, x @ (chance - target))
    return float(line[0]), float(line[1])


def read_calibration(folder: Path) -> dict[str, float]:
    """`calibration.json` beside a value model, empty without one: its score is sigmoid(scale * logit + shift)."""
    path = folder / CALIBRATION_NAME
    if not path.exists():
        return {}
    figures = {key: value for key, value in read_json(path).items() if isinstance(value, int | float)}
    wrong = [key for key in ("scale", "shift") if not math.isfinite(figures.get(key, math.nan))]
    if wrong:
        raise BundleError(f"{path}: {wrong[0]} must be a finite number, got {figures.get(wrong[0])}")
    return {key: float(value) for key, value in figures.items() if not isinstance(value, bool)}
