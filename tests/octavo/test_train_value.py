"""A value model learns from what an ensemble writes, and its export scores as it learned to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from octavo.cli import main
from octavo.runtime.local import Octavo
from octavo.runtime.statistics import auc
from tests.runtime.conftest import make_bundle  # noqa: F401

VERIFIER = "def right(prompt, text): return '6' in text\n"

LEARNING = ("--steps", "150", "--rows", "64", "--layers", "1", "--rate", "1e-3")


@pytest.fixture(scope="module")
def bundle(make_bundle: Callable[..., Path]) -> Path:  # noqa: F811
    return make_bundle(1, hidden=True)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "prompt": f"task {n * 37 % 101}:"}) + "\n" for n in range(100)))
    (path.parent / "verifier.py").write_text(VERIFIER)
    return path


def command(bundle: Path, tasks: Path, out: Path, *more: str) -> list[str]:
    verifier = f"{tasks.parent / 'verifier.py'}:right"
    return [
        *("train-value", str(bundle), str(tasks), "--out", str(out), "--verifier", verifier, "--samples", "8"),
        *("--max-new-tokens", "6", "--json", *more),
    ]


@pytest.mark.parametrize("on", ["states", "trunk"])
def test_what_is_learned_is_what_the_export_says(
    on: str, bundle: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, judged = tmp_path / "value", tmp_path / "judged"
    assert main(command(bundle, tasks, out, "--on", on, *LEARNING)) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["auc"] > 0.6
    assert sum(each["count"] for each in figures["reliability"]) == figures["tested_on"]
    experts = sorted(str(path) for path in bundle.parent.glob("expert-*"))
    assert main(["export", *experts, "--value", str(out), "--out", str(judged), "--no-verify", "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["value"]["head_on_expert"] is (on == "states")
    assert manifest["value"]["calibration"]["auc"] == pytest.approx(figures["auc"])
    prompts = [json.loads(line)["prompt"] for line in tasks.read_text().splitlines()]
    with Octavo.load(judged, samples=8) as octavo:
        found = octavo.ask_many(prompts, max_new_tokens=6, policy="ensemble")
    replies = [reply for result in found for reply in result.candidates]
    scores, right = [reply.value or 0.0 for reply in replies], ["6" in reply.text for reply in replies]
    assert (auc(scores, right) or 0) > 0.6
    assert sum(scores) / len(scores) == pytest.approx(sum(right) / len(right), abs=0.12)


def test_sampling_goes_on_where_it_stopped(
    bundle: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command(bundle, tasks, tmp_path, "--on", "states")
    assert main(run) == 0
    first, found = capsys.readouterr().out, (tmp_path / "candidates.jsonl").read_text()
    lines = found.splitlines(keepends=True)
    (tmp_path / "candidates.jsonl").write_text("".join(lines[:30]) + lines[30][:50])
    asked: list[str] = []
    submit = Octavo.submit
    monkeypatch.setattr(Octavo, "submit", lambda *a, **k: (asked.append(a[1]), submit(*a, **k))[1])
    assert main(run) == 0
    assert len(asked) == 101 - 30
    assert (tmp_path / "candidates.jsonl").read_text() == found
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--seed", "1"), "sampled with seed 0, now 1; remove it"),
        (("--on", "air"), "--on: 'air' is not one of trunk, states"),
        (("--held-out", "1.5"), "held_out must be between 0 and 1"),
        (("--limit", "1"), "both kinds are needed"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    more: tuple[str, ...], message: str, bundle: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--seed" in more:
        assert main(command(bundle, tasks, tmp_path, "--on", "states")) == 0
    assert main(command(bundle, tasks, tmp_path, *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model.safetensors").exists()


def test_a_bundle_without_states_says_how_to_get_them(
    make_bundle: Callable[..., Path],  # noqa: F811
    tasks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(make_bundle(1), tasks, tmp_path, "--on", "states")) == 2
    assert "export with --hidden" in capsys.readouterr().err
