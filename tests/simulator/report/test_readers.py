"""A document that the report can't read is refused with the file, the key and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octavo.profiles.errors import ConfigError
from octavo.simulator.report import write_report


def refused(folder: Path, content: Any) -> str:
    path = folder / "run.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        write_report([path], folder / "report.html")
    assert not list(folder.glob("report*")), "nothing is written for a document that is refused"
    return str(caught.value)


def test_no_documents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run documents"):
        write_report([], tmp_path / "report.html")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json"):
        write_report([tmp_path / "absent.json"], tmp_path / "report.html")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "\x00"])
def test_what_is_no_document_at_all_is_refused_by_name(tmp_path: Path, content: str) -> None:
    assert "run.json" in refused(tmp_path, content)


@pytest.mark.parametrize("kind", ["simulatoin", None, 3, [], {}])
def test_an_unknown_kind_is_answered_with_the_kinds_there_are(tmp_path: Path, kind: object) -> None:
    said = refused(tmp_path, {"kind": kind})
    assert "run.json: kind" in said
    assert "allowed: " in said
    assert "simulation" in said


def test_a_kind_nearly_right_is_guessed(tmp_path: Path) -> None:
    assert "did you mean 'simulation'" in refused(tmp_path, {"kind": "simulatoin"})
