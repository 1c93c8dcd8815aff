"""A stranger's program gets its time and memory, and not more."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from octavo.profiles.errors import ConfigError
from octavo.runtime.sandbox import Allowance, run_command, run_python
from octavo.runtime.tasks import load_verifier

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")


def test_a_program_passes_when_it_ends_without_an_error() -> None:
    assert run_python("assert 1 + 1 == 2").passed
    failed = run_python("assert 1 + 1 == 3, 'no'")
    assert not failed.passed
    assert "AssertionError: no" in failed.message


def test_a_program_that_never_ends_is_killed_with_all_its_children(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    child = f"import time; time.sleep(1.5); open({str(marker)!r}, 'w')"
    source = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}])\nwhile True: pass"
    begun = time.monotonic()
    ran = run_python(source, Allowance(seconds=0.5))
    assert time.monotonic() - begun < 5
    assert (ran.status, ran.passed) == (None, False)
    time.sleep(1.6)
    assert not marker.exists()


def test_a_program_cannot_take_all_memory_or_fill_the_disk() -> None:
    assert not run_python("x = bytearray(1 << 30)", Allowance(memory=1 << 28)).passed
    assert not run_python("open('f', 'wb').write(bytes(1 << 22))").passed


def test_what_a_program_says_without_end_stays_within_the_limit_of_a_file() -> None:
    """On stderr that is a file; nothing of it is held in this process but the last words."""
    ran = run_python("import sys\nwhile True: sys.stderr.write('x' * 65536)", Allowance(seconds=5))
    assert not ran.passed
    assert len(ran.message) <= 600


@pytest.mark.parametrize("ending", ["exit()", "import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
def test_a_program_that_ends_itself_before_its_tests_has_not_passed(ending: str) -> None:
    assert not run_python(f"def f(): return 1\n{ending}\nassert f() == 2").passed


def test_a_program_is_run_as_a_module_and_its_own_main_part_is_not() -> None:
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    assert run_python(f"{source}if __name__ == '__main__':\n    input()\nassert A(1).x == 1").passed


@pytest.mark.skipif(sys.platform != "linux", reason="found by /proc")
def test_nothing_that_a_program_has_started_is_left_when_it_is_over(tmp_path: Path) -> None:
    """Not even processes in sessions of their own; and nobody waits for them."""
    marker = tmp_path / "alive"
    source = f"""
import os, time
for _ in range(8):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1)
            open({str(marker)!r}, "w")
        os._exit(0)
"""
    begun = time.monotonic()
    assert run_python(source).passed
    assert time.monotonic() - begun < 1
    time.sleep(1.2)
    assert not marker.exists()


def test_a_program_sees_neither_the_environment_nor_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert run_python("import os; assert 'SECRET' not in os.environ and not os.listdir()").passed


def test_a_command_verifies_what_it_reads() -> None:
    script = "import json, sys; row = json.load(sys.stdin); sys.exit(row['text'] != row['prompt'])"
    verify = load_verifier(f'command:{sys.executable} -c "{script}"')
    assert verify("a", "a")
    assert not verify("a", "b")


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot run no-such-program"):
        run_command(["no-such-program"], "")
    with pytest.raises(ConfigError, match="names no program"):
        load_verifier("command:")
    with pytest.raises(ConfigError, match="seconds must be positive"):
        Allowance(seconds=0)
