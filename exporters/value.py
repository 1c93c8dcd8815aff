"""The value model's place in a bundle: its calibration and its manifest entry."""

from __future__ import annotations

import math

from octavo.exporters.checkpoint import Checkpoint, read_json
from octavo.profiles.errors import BundleError

CALIBRATION_NAME = "calibration.json"


def read_calibration(checkpoint: Checkpoint) -> dict[str, float]:
    """`calibration.json` beside a value model, empty without one: its score is sigmoid(scale * logit + shift)."""
    path = checkpoint.folder / CALIBRATION_NAME
    if not path.exists():
        return {}
    figures = {key: value for key, value in read_json(path).items() if isinstance(value, int | float)}
    wrong = [key for key in ("scale", "shift") if not math.isfinite(figures.get(key, math.nan))]
    if wrong:
        raise BundleError(f"{path}: {wrong[0]} must be a finite number, got {figures.get(wrong[0])}")
    return {key: float(value) for key, value in figures.items() if not isinstance(value, bool)}
