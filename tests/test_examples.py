"""Every example runs as it stands, and prints what is beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
WITH_MODELS = {"run.py": ("torch", "onnx_ir", "onnxruntime")}


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_prints_what_is_beside_it(example: Path, tmp_path: Path) -> None:
    if missing := [name for name in WITH_MODELS.get(example.name, ()) if not find_spec(name)]:
        pytest.skip(f"needs {', '.join(missing)}")
    done = subprocess.run(
        [sys.executable, example],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == example.with_suffix(".out").read_text(encoding="utf-8"), (
        "run `make docs` and read what changed"
    )
