"""What the command line promises: one clear message and the right exit code, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from octavo.cli import main
from octavo.show import settings

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "octavo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ,
    )


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """Run a command that must fail with this code; returns the message, which must be short and no traceback."""
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert captured.err.strip()
    return " ".join(captured.err.split())


def test_help_names_every_command_and_starts_fast() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("doctor", "train", "export", "inspect", "ask", "eval", "measure", "simulate", "report", "demo"):
        assert f" {command} " in done.stdout


def test_an_unknown_command_is_a_usage_error_with_a_suggestion() -> None:
    done = run("simulat")
    assert done.returncode == 2
    assert "simulate" in done.stderr


def test_the_reference_page_is_what_the_commands_say() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    import generate  # type: ignore[import-not-found]

    assert generate.PAGE.read_text() == generate.page(), "run `make docs`"


def test_a_missing_bundle_is_refused_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no such bundle folder" in refused(capsys, 5, "inspect", str(tmp_path / "nothing"))
    assert "manifest.json" in refused(capsys, 5, "inspect", str(tmp_path))


def test_a_mangled_manifest_names_the_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"name": 3}))
    assert "name" in refused(capsys, 5, "inspect", str(tmp_path))


def test_an_unknown_profile_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, 2, "profiles", "show", "hardware", "h100-smx")
    assert "h100-sxm" in message


def test_an_expert_that_is_no_checkpoint_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refused(capsys, 5, "export", str(tmp_path), "--out", str(tmp_path / "bundle"))
    assert "config.json" in message
    assert not (tmp_path / "bundle").exists()


def test_a_wrong_precision_names_the_right_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refused(capsys, 2, "export", str(tmp_path), "--out", str(tmp_path / "b"), "--precision", "fp8")
    assert "fp32, fp16, bf16, int8, int4" in message


def test_a_wrong_scenario_names_file_key_value_and_choices(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("ensemble: {experts: {model: llama-3.1-8b, count: 8}, polcy: {name: ensemble}}\nworkload: chat\n")
    message = refused(capsys, 2, "simulate", str(path))
    assert "mine.yaml" in message
    assert "ensemble.polcy" in message
    assert "policy" in message


def test_a_wrong_unit_and_an_unknown_policy_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "3 parsecs" in refused(capsys, 2, "simulate", "single-box", "--set", "targets.ttft_p95=3 parsecs")
    assert "early_exit" in refused(capsys, 2, "simulate", "single-box", "--set", "ensemble.policy.name=best")


def test_a_full_disk_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("simulate", "single-box", "--queries", "20", "--no-baselines", "--out", "/dev/full")
    assert main(arguments) == 4
    assert "No space left" in capsys.readouterr().err


def test_a_simulation_prints_the_same_bytes_for_the_same_seed() -> None:
    first, second = (run("simulate", "single-box", "--queries", "40", "--seeds", "1", "--json") for _ in range(2))
    assert first.returncode == 0
    assert first.stdout == second.stdout
    assert json.loads(first.stdout)["kind"] == "simulation"


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_plan_says_what_it_found(stop: signal.Signals, code: int, tmp_path: Path) -> None:
    kept = tmp_path / "plan.json"
    command = [sys.executable, "-m", "octavo", "plan", "single-box", "--out", str(kept), "--json"]
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heard
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(stop)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert json.loads(output) == json.loads(kept.read_text())
    assert json.loads(output)["incomplete"].startswith("stopped")
    assert "Traceback" not in errors


def test_an_interrupted_command_says_so_and_exits_with_130() -> None:
    command = [sys.executable, "-m", "octavo", "simulate", "single-box"]
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heard
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors


def test_a_policys_settings_and_verifier_are_read_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ask = ("ask", str(tmp_path), "abc")
    assert "--set 'keep': write KEY=VALUE" in refused(capsys, 2, *ask, "--set", "keep")
    assert "only --policy filtered asks one" in refused(capsys, 2, *ask, "--verifier", "checks.py:passes")
    filtered = refused(capsys, 2, *ask, "--policy", "filtered", "--verifier", "checks.py:passes")
    assert "checks.py: no such file" in filtered
    assert settings(["keep=0.5", "by=majority", "samples=3"]) == {"keep": 0.5, "by": "majority", "samples": 3}


def test_an_empty_task_file_and_a_lost_trace_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    empty = tmp_path / "tasks.jsonl"
    empty.write_text("")
    assert "no tasks in it" in refused(capsys, 2, "ask", str(tmp_path), "--task", str(empty))
    assert "no such trace" in refused(capsys, 2, "validate", str(empty) + "x", str(empty))
