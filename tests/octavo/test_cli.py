"""What the command line promises: one clear message and the right exit code, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from octavo.cli import main

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
