"""The value model: a classifier's one logit, or a head on the experts' own hidden state, and its calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from octavo.exporters.checkpoint import Array, Checkpoint, Tensor, open_checkpoint, read_json, stored_tensors
from octavo.exporters.outputs import VALUE_HEAD
from octavo.profiles.errors import BundleError

CALIBRATION_NAME = "calibration.json"


HEAD_NAME = "value_head.safetensors"


SCORE = "score.weight"


@dataclass(frozen=True, slots=True)
class OddsTensor:
    """The one row of a classifier of two labels: its logit is the log-odds of label 1, as softmax has it."""

    rows: Tensor

    @property
    def path(self) -> Path:
        return self.rows.path

    @property
    def dtype(self) -> str:
        return "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.rows.shape[1])

    @property
    def size(self) -> int:
        return self.rows.shape[1]

    def read(self) -> Array:
        rows = self.rows.read().astype(np.float32)
        return np.asarray(rows[1:] - rows[:1])

    def head(self) -> bytes:
        return self.read().tobytes()[:4096]


def open_classifier(folder: Path) -> Checkpoint:
    """A sequence-classification checkpoint with one logit, or two, of which the second is for the better.

    Raises BundleError for one that has no such head.
    """
    checkpoint = open_checkpoint(folder)
    score = checkpoint.tensors.get(SCORE)
    if score is None:
        return _with_labels(checkpoint)
    if len(score.shape) != 2 or score.shape[0] > 2:
        raise BundleError(f"{folder}: {SCORE} is {score.shape}; a value model has one label (its logit), or two")
    if score.shape[0] == 1:
        return checkpoint
    return replace(checkpoint, tensors=checkpoint.tensors | {SCORE: OddsTensor(score)})


def _with_labels(checkpoint: Checkpoint) -> Checkpoint:
    """A classifier whose head has a name of its family's: what it is and how many labels it has, its config says."""
    config, folder = checkpoint.config, checkpoint.folder
    if not any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        what = "no score.weight, and its config is of no sequence classifier; a value model is one"
        raise BundleError(f"{folder}: {what}, or a head ({HEAD_NAME})")
    labels = len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))
    if labels > 2:
        raise BundleError(f"{folder}: it has {labels} labels; a value model has one label (its logit), or two")
    return checkpoint


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
