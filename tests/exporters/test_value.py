"""Scores are calibrated, and a head on the experts' own hidden state is one more output of their graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from octavo.exporters.export import export_bundle
from octavo.exporters.player import Player
from octavo.exporters.value import platt
from octavo.profiles.errors import BundleError
from tests.exporters.conftest import Maker


def save_head(folder: Path, size: int) -> np.ndarray:
    from safetensors.numpy import save_file

    folder.mkdir()
    weight = np.random.default_rng(0).standard_normal((1, size), np.float32)
    save_file({"weight": weight}, folder / "value_head.safetensors")
    (folder / "calibration.json").write_text('{"scale": 0.5, "shift": 1.0}')
    return weight


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_a_head_reads_the_experts_hidden_state(precision: str, make_model: Maker, tmp_path: Path) -> None:
    weight = save_head(tmp_path / "head", 48)
    manifest = export_bundle(
        [make_model()], tmp_path / "bundle", value=tmp_path / "head", hidden=True, precision=precision
    )
    parity = manifest.experts[0].weights[0].parity
    assert parity is not None
    assert parity.max_score_error is not None
    assert parity.max_score_error < {"fp32": 1e-4, "fp16": 0.02, "int8": 0.5, "int4": 2.0}[precision]
    assert manifest.value is not None
    assert manifest.value.head_on_expert
    assert (manifest.value.scale, manifest.value.shift, manifest.value.parameters) == (0.5, 1.0, 48)
    player = Player(tmp_path / "bundle", manifest.experts[0].weights[0], manifest.graphs[0], 1, 16)
    player.prefill(np.arange(4, 10)[None], np.array([6]))
    assert np.allclose(
        player.others["score_logit"], player.others["hidden"] @ weight[0], atol=1e-2 if precision == "fp16" else 1e-4
    )


def test_a_head_of_another_size_is_refused(make_model: Maker, tmp_path: Path) -> None:
    save_head(tmp_path / "head", 32)
    with pytest.raises(BundleError, match=r"one tensor `weight` of \(1, 48\) is expected"):
        export_bundle([make_model()], tmp_path / "bundle", value=tmp_path / "head")


def test_of_two_labels_the_log_odds_are_the_score(make_model: Maker, tmp_path: Path) -> None:
    judge = make_model("llama", seed=99, head="ForSequenceClassification", num_labels=2)
    manifest = export_bundle([make_model()], tmp_path / "bundle", value=judge)
    assert manifest.value is not None
    parity = manifest.value.weights[0].parity
    assert parity is not None
    assert parity.max_abs_error < 1e-5


def test_a_value_model_without_a_score_is_refused(make_model: Maker, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no score\.weight, and its config is of no sequence classifier"):
        export_bundle([make_model()], tmp_path / "bundle", value=make_model())
    judge = make_model("llama", seed=99, head="ForSequenceClassification", num_labels=3)
    with pytest.raises(BundleError, match=r"score\.weight is \(3, 48\); a value model has one label"):
        export_bundle([make_model()], tmp_path / "bundle", value=judge)


def test_platt_finds_the_line_that_made_the_verdicts() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=20000) * 3
    right = (random.random(20000) < 1 / (1 + np.exp(-(0.7 * logits - 0.4)))).astype(int)
    assert platt(logits, right) == pytest.approx((0.7, -0.4), abs=0.05)


def test_a_calibration_that_is_no_number_is_refused(make_model: Maker, tmp_path: Path) -> None:
    save_head(tmp_path / "head", 48)
    (tmp_path / "head" / "calibration.json").write_text('{"scale": NaN, "shift": 0}')
    with pytest.raises(BundleError, match="scale must be a finite number"):
        export_bundle([make_model()], tmp_path / "bundle", value=tmp_path / "head", verify=False)
