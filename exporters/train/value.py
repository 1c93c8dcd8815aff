"""`train_value`: from an ensemble's own candidates and their verdicts to a calibrated value model."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from octavo.exporters.checkpoint import Array
from octavo.exporters.train.folders import whole
from octavo.exporters.train.judged import Judged, read_judged, split, verdicts
from octavo.exporters.train.learning import Learning
from octavo.exporters.train.progress import Watch, silent
from octavo.exporters.value import CALIBRATION_NAME, platt
from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import Manifest, read_manifest

On = Literal["trunk", "states"]


@dataclass(frozen=True, slots=True)
class Taught:
    """The value model's calibration, and what it says of the test candidates: queries of (score, right)."""

    scale: float
    shift: float
    trained_on: int
    calibrated_on: int
    test: list[list[tuple[float, bool]]]


def train_value(
    bundle: Path,
    candidates: Path,
    out: Path,
    *,
    on: On = "trunk",
    trunk: Path | None = None,
    learning: Learning | None = None,
    watch: Watch = silent,
) -> Taught:
    """Fit a value model to candidates of the bundle's experts and write it to the folder `out`.

    On `states` it is a head over the experts' own last hidden state; on a `trunk`, a sequence-classification
    checkpoint grown from that decoder (None: the checkpoint of the bundle's first expert). Either is what
    `export_bundle` takes as `value`, with its calibration beside it.

    Raises ConfigError or BundleError.
    """
    learning = learning or Learning()
    manifest = read_manifest(bundle)
    parts = split(read_judged(candidates), learning.held_out, learning.seed)
    with whole(out / ".model") as folder:
        if on == "states":
            from octavo.exporters.train.states import fit_states

            held, test = fit_states(bundle, manifest, parts, folder, watch)
        else:
            from octavo.exporters.train.trunk import fit_trunk

            source = trunk or _first_source(manifest)
            held, test = fit_trunk(source, parts, folder, learning, learning.course(source), watch)
        scale, shift = platt(held, verdicts(parts.calibration))
        figures = {"scale": scale, "shift": shift, "candidates": len(held)}
        (folder / CALIBRATION_NAME).write_text(json.dumps(figures, indent=2) + "\n")
    _move(out / ".model", out)
    scores = 1 / (1 + np.exp(-(scale * test + shift)))
    return Taught(scale, shift, len(parts.train), len(held), _by_query(parts.test, scores))


def _first_source(manifest: Manifest) -> Path:
    """Where the first expert came from. Raises ConfigError where that is not there any more, or an adapter's folder."""
    source = Path(manifest.experts[0].source)
    if not (source / "config.json").is_file():
        raise ConfigError(f"train-value: {source} of the bundle's first expert is no checkpoint here; give --trunk")
    return source


def _move(made: Path, out: Path) -> None:
    """Let the files of a folder take their places in another, the weights last, and remove it."""
    for path in sorted(made.iterdir(), key=lambda path: path.suffix == ".safetensors"):
        os.replace(path, out / path.name)
    shutil.rmtree(made)


def _by_query(candidates: list[Judged], scores: Array) -> list[list[tuple[float, bool]]]:
    rows: dict[str, list[tuple[float, bool]]] = {}
    for each, score in zip(candidates, scores.tolist(), strict=True):
        rows.setdefault(each.query, []).append((score, each.right))
    return list(rows.values())
