"""The demo is nothing but commands: each is one that the command line understands, and each reads what others left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.main import get_command

from octavo import demo
from octavo.cli import app
from octavo.demo import DemoError, Stage, run_demo, stages


def test_every_stage_is_a_command_with_options_that_there_are() -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    for stage in stages(Path("d")):
        name, *arguments = stage.arguments
        known[name].make_context(name, arguments)


def test_what_a_stage_reads_was_left_by_one_before_it() -> None:
    left = {"train"}
    for stage in stages(Path("d")):
        if stage.name != "train":
            read = {word.split("=")[-1].split("/")[1] for word in stage.arguments if "d/" in word.split("=")[-1][:2]}
            assert read <= left | {path.split("/")[0] for path in stage.leaves}, stage.name
        left |= {path.split("/")[0] for path in stage.leaves}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A demo of three stages, real processes that write a file each; the second fails until `allowed` is there."""

    def three(folder: Path) -> list[Stage]:
        code = (
            "import pathlib, sys; sys.argv[2] and pathlib.Path(sys.argv[2]).stat(); pathlib.Path(sys.argv[1]).touch()"
        )
        needs = {"b": str(tmp_path / "allowed")}
        return [Stage(n, n, ("-c", code, str(folder / n), needs.get(n, "")), (n,)) for n in "abc"]

    run: list[str] = []
    call = demo._call

    def python(command: list[str]) -> int:
        run.append(Path(command[-2]).name)
        return call([command[0], *command[3:]])

    monkeypatch.setattr(demo, "stages", three)
    monkeypatch.setattr(demo, "_call", python)
    return run


def test_a_demo_goes_on_where_it_failed_and_runs_nothing_twice(commands: list[str], tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="stage 'b' failed"):
        run_demo(tmp_path / "out")
    (tmp_path / "allowed").touch()
    run_demo(tmp_path / "out")
    assert commands == ["a", "b", "b", "c"]
    run_demo(tmp_path / "out")
    assert commands == ["a", "b", "b", "c"]
    assert set(json.loads((tmp_path / "out" / "demo.json").read_text())) == {"a", "b", "c"}


def test_a_result_that_was_deleted_is_made_again_with_all_after_it(commands: list[str], tmp_path: Path) -> None:
    (tmp_path / "allowed").touch()
    run_demo(tmp_path / "out")
    (tmp_path / "out" / "b").unlink()
    run_demo(tmp_path / "out")
    assert commands == ["a", "b", "c", "b", "c"]
    run_demo(tmp_path / "out", fresh=True)
    assert commands[-3:] == ["a", "b", "c"]
