"""The compiled form: the same answers as the source, and never of another text than the source's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from octavo import compiled

SAID = """
import pickle
import sys
from octavo.profiles import load_scenario
from octavo.runtime.core import kv, trace
from octavo.simulator.run import simulate
result = simulate(load_scenario(sys.argv[1], ["workload.queries=60"]), seeds=[0], trace=True)
print(kv.__file__.endswith(".py"), file=sys.stderr)
records = pickle.loads(pickle.dumps(result.records))
print(*trace.to_lines(records), result.metrics, sep="\\n")
"""


def said(scenario: str, plain: str) -> tuple[bool, str]:
    """Whether the source ran, and the trace and the metrics of a simulation by a process of its own."""
    environment = {**os.environ, "OCTAVO_PLAIN": plain}
    done = subprocess.run(
        [sys.executable, "-c", SAID, scenario], env=environment, capture_output=True, text=True, check=True
    )
    return done.stderr.strip().endswith("True"), done.stdout


@pytest.mark.skipif(compiled.form() != "compiled", reason="not compiled; `make compile`")
@pytest.mark.parametrize("scenario", ["single-box", "edge-cascade"])
def test_the_compiled_form_says_the_same_byte_for_byte(scenario: str) -> None:
    from_source, text = said(scenario, "1")
    from_machine_code, same = said(scenario, "0")
    assert (from_source, from_machine_code) == (True, False)
    assert text == same


def test_a_changed_source_is_not_run_from_its_old_compiled_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "runtime" / "core" / "kv.py"
    source.parent.mkdir(parents=True)
    source.write_text("number = 1\n")
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    monkeypatch.setattr(compiled, "STAMP", tmp_path / ".compiled.json")
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    monkeypatch.delenv("OCTAVO_PLAIN", raising=False)
    compiled.stamp({"runtime/core/kv.py": compiled.digest(source)})
    assert list(json.loads(compiled.STAMP.read_text())) == ["runtime/core/kv.py"]

    compiled.prefer_source()
    assert compiled.form() == "compiled"
    assert sys.meta_path == [PathFinder]

    source.write_text("number = 2\n")
    compiled.prefer_source()
    assert compiled.form() == "stale"
    spec = sys.meta_path[0].find_spec("octavo.runtime.core.kv")
    assert spec is not None
    assert spec.origin == str(source)
