"""The wheel that is built from the source distribution holds every module and data file, under one name."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("runtime", "exporters", "simulator", "profiles")
SHIPPED = {".py", ".yaml", ".json", ".csv", ".typed", ".jsonl", ".toml"}


@pytest.mark.slow
def test_the_wheel_holds_every_source_and_data_file(tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *PARTS, "octavo"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [Path(name) for name in tracked.stdout.split()]
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)], check=True, capture_output=True
    )
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    want = {
        (file if file.parts[0] == "octavo" else Path("octavo") / file).as_posix()
        for file in files
        if file.suffix in SHIPPED
    }
    assert want <= names, sorted(want - names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"octavo"}


def test_each_part_is_typed_and_linked_for_type_checkers() -> None:
    for part in PARTS:
        assert (ROOT / part / "py.typed").is_file()
        assert (ROOT / ".typing" / "octavo" / part).exists()
    assert {path.name for path in (ROOT / "octavo").glob("*.py")} == {
        path.name for path in (ROOT / ".typing" / "octavo").glob("*.py")
    }
