"""Training in miniature: everything is made, found again, and the same for the same seed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from octavo.exporters.train import TINY, Progress, Trained, train_ensemble
from octavo.exporters.train.alphabet import answer_rows, prompt_rows
from octavo.exporters.train.calibration import auc, calibrate
from octavo.exporters.train.folders import whole
from octavo.exporters.train.plan import plan
from octavo.exporters.train.problems import fixed


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_ensemble(tmp_path_factory.mktemp("train"), TINY, workers=1)


def test_every_model_is_an_ordinary_checkpoint(trained: Trained) -> None:
    prompt = torch.tensor([AutoTokenizer.from_pretrained(trained.value)("mids 5291:")["input_ids"]])
    for folder in (trained.folder / "base", *trained.experts, *trained.baselines):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.generate(prompt).shape[1] <= prompt.shape[1] + TINY.new_tokens
    logits = AutoModelForSequenceClassification.from_pretrained(trained.value)(input_ids=prompt).logits
    assert logits.shape == (1, 1)


def test_the_tokenizer_writes_what_training_read(trained: Trained) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained.experts[0])
    for problem in fixed(TINY, "heldout", 5):
        ids = tokenizer(problem.prompt)["input_ids"]
        assert ids == prompt_rows([problem])[0].tolist()
        assert tokenizer.decode(ids, skip_special_tokens=True) == problem.prompt
        assert tokenizer.decode(answer_rows([problem])[0], skip_special_tokens=True) == problem.reference
    unknown = tokenizer("Mids 5!")["input_ids"]
    assert unknown.count(tokenizer.unk_token_id) == 2


def test_finished_stages_are_not_trained_again(trained: Trained) -> None:
    told: list[Progress] = []
    train_ensemble(trained.folder, TINY, progress=told.append)
    assert [progress.stage for progress in told] == [stage.name for stage in plan(TINY)]
    assert all(progress.found for progress in told)


def test_only_what_a_change_concerns_is_trained_again(trained: Trained) -> None:
    changed = dataclasses.replace(TINY, value=dataclasses.replace(TINY.value, problems=21))
    assert [old.name for old, new in zip(plan(TINY), plan(changed), strict=True) if old.key != new.key] == ["value"]


def test_the_same_seed_gives_the_same_weights_whatever_the_number_of_workers(trained: Trained, tmp_path: Path) -> None:
    again = train_ensemble(tmp_path, TINY, workers=2)
    for name in ("base", "expert-3", "value", "generalist", "soup"):
        weights = [(folder / name / "model.safetensors").read_bytes() for folder in (trained.folder, again.folder)]
        assert weights[0] == weights[1], name
    files = [(folder / "tasks" / "heldout.jsonl").read_text() for folder in (trained.folder, again.folder)]
    assert files[0] == files[1]


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), whole(tmp_path / "base") as folder:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with whole(tmp_path / "base") as folder:
        (folder / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_score_is_a_probability() -> None:
    """Of candidates whose right answers follow a known curve, the calibration finds that curve."""
    logits = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)) * 2
    chance = torch.sigmoid(1.5 * logits - 0.7)
    found = calibrate(logits, torch.rand(chance.shape, generator=torch.Generator().manual_seed(1)) < chance)
    assert found.scale == pytest.approx(1.5, abs=0.1)
    assert found.shift == pytest.approx(-0.7, abs=0.1)
    assert found.candidates == logits.numel()


def test_auc_counts_pairs() -> None:
    scores, right = torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([False, True, False, True])
    assert auc(scores, right) == pytest.approx((1 + 0.5 + 1 + 1) / 4)


def test_calibration_is_recorded_beside_the_value_model(trained: Trained) -> None:
    figures = json.loads((trained.value / "calibration.json").read_text())
    assert {"scale", "shift", "auc", "candidates"} <= figures.keys()
    assert figures["candidates"] == TINY.value.calibration_problems * len(trained.experts) * TINY.samples
