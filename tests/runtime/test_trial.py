"""Lanes and threads: what a trial found is used and remembered, and never asked where the user chose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo.runtime import place, trial
from octavo.runtime.core.trace import RunRecord
from octavo.runtime.local import Octavo
from octavo.runtime.trial import Layout, layouts

SPREAD, WHOLE = {"lanes": 2, "threads": 1}, {"lanes": 1, "threads": 2}


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine of two cores on which every model is worth a trial; the folder where trials are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(place, "SMALLEST", 0)
    monkeypatch.setattr(place, "cores", lambda: 2)
    return tmp_path / "octavo" / "layouts"


def run(bundle: Path, **options: Any) -> tuple[dict[str, int], str, list[str]]:
    """Lanes and threads of a load, what its result says of them, and its texts."""
    with Octavo.load(bundle, **options) as octavo:
        result = octavo.ask("mids 1234:", seed=3, max_new_tokens=8)
        placed, head = octavo.placed, octavo.run_record()
    assert isinstance(head, RunRecord)
    assert head.machine["layout"] == result.layout
    used = {"lanes": len(placed.lanes), "threads": placed.threads}
    return used, result.layout, [candidate.text for candidate in result.candidates]


def test_what_was_found_is_used_told_and_remembered(bundle: Path, kept: Path) -> None:
    used, told, _ = run(bundle)
    (path,) = kept.iterdir()
    found = json.loads(path.read_text())
    assert used == found["layout"]
    assert used in (SPREAD, WHOLE)
    assert told.endswith(", measured")
    assert min(found["seconds"].values()) == found["seconds"][str(Layout(**used))]
    assert all(seconds > 0 for seconds in found["seconds"].values())


@pytest.mark.parametrize("layout", [SPREAD, WHOLE])
def test_what_is_remembered_is_used_and_changes_no_answer(bundle: Path, kept: Path, layout: dict[str, int]) -> None:
    _, _, texts = run(bundle)
    (path,) = kept.iterdir()
    path.write_text(json.dumps({"layout": layout}))
    assert run(bundle) == (layout, f"{Layout(**layout)}, measured", texts)
    assert json.loads(path.read_text()) == {"layout": layout}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"layout": {"lanes": 9, "threads": 9}}', '{"layout": 1}'])
def test_anything_else_in_its_place_is_measured_again(bundle: Path, kept: Path, content: str) -> None:
    run(bundle)
    (path,) = kept.iterdir()
    path.write_text(content)
    run(bundle)
    assert json.loads(path.read_text())["layout"] in (SPREAD, WHOLE)


@pytest.mark.parametrize("options", [{"devices": ["cpu:0"]}, {"threads": 1}, {"devices": ["cpu:0", "cpu:1"]}])
def test_explicit_options_are_obeyed_untried(bundle: Path, kept: Path, options: dict[str, Any]) -> None:
    used, told, _ = run(bundle, **options)
    assert used["lanes"] == len(options.get("devices", SPREAD))
    assert not told.endswith("measured")
    assert not kept.exists()


def test_small_models_are_not_tried(bundle: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "SMALLEST", trial.SMALLEST)
    used, told, _ = run(bundle)
    assert (used, told) == (SPREAD, "2 lanes x 1 thread")
    assert not kept.exists()


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("models", [1, 2, 8])
def test_no_layout_has_more_threads_than_cores_and_one_has_all(cores: int, models: int) -> None:
    found = layouts(cores, models)
    assert all(layout.lanes * layout.threads <= cores for layout in found)
    assert Layout(1, cores) in found
    assert len(set(found)) == len(found) == (1 if min(cores, models) == 1 else 2)
