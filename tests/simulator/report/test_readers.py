"""A document that the report can't read is refused with the file, the key and what is allowed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.profiles.errors import ConfigError
from octavo.simulator.report import write_report
from octavo.simulator.report.html import to_html
from octavo.simulator.report.readers import read
from octavo.simulator.report.sections import page


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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_a_damaged_document_is_read_or_refused_and_never_a_traceback(
    documents: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(sorted(documents)))
    content = json.loads(documents[kind].read_text())
    damage(content, data)
    path = tmp_path_factory.mktemp("damaged") / "run.json"
    path.write_text(json.dumps(content))
    with suppress(ConfigError):
        to_html(page([read(path)], None, None))


def damage(content: Any, data: st.DataObject) -> None:
    """Put something else in one place, a few levels down."""
    here = content
    for depth in range(data.draw(st.integers(1, 6))):
        keys = list(here) if isinstance(here, dict) else list(range(min(3, len(here))))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if depth and not isinstance(here[key], dict | list):
            break
        if isinstance(here[key], dict | list) and here[key]:
            here = here[key]
    keys = list(here) if isinstance(here, dict) else list(range(min(3, len(here))))
    if keys:
        here[data.draw(st.sampled_from(keys))] = data.draw(
            st.sampled_from([None, -1, 0, 1e308, "text", "", [], {}, True, [None], {"kind": 1}])
        )
