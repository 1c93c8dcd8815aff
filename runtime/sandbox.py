"""Runs a stranger's program in a process of its own, with limits of time, memory, output and processes.

It keeps a broken program from taking the machine along. It is no jail: a hostile one can still read files and use the
network, so run untrusted models' code in a container as well (the number of processes, too, is limited for users other
than root only).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from octavo.profiles.errors import ConfigError

if os.name == "posix":
    import resource

LONGEST = 500  # bytes of a program's last words
REACHED = 86  # the exit status of a program that came to its end; it cannot come there by ending itself
DRIVER = f"""
import os, sys, types
module = sys.modules["answer"] = types.ModuleType("answer")
exec(compile(sys.stdin.read(), "answer.py", "exec"), module.__dict__)
sys.stderr.flush()
os._exit({REACHED})
"""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a program may use: seconds of time and of processor, bytes of memory and of each file, stderr among them.

    `processes` may run beside all that run already.
    """

    seconds: float = 10.0
    memory: int = 1 << 30
    file_bytes: int = 1 << 20
    processes: int = 256

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory < 1 << 24:
            raise ConfigError(f"sandbox: seconds must be positive and memory at least 16 MiB, got {self}")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended: its exit status (None: it was killed when its time was up), and the end of its stderr."""

    status: int | None
    message: str

    @property
    def passed(self) -> bool:
        return self.status == 0


def run_python(source: str, allowance: Allowance | None = None) -> Ran:
    """Run Python source in isolated mode, as a module; it passes when its last line was reached without an error.

    A program that ends itself before, be it with `sys.exit(0)`, has not passed.
    """
    ran = run_command([sys.executable, "-I", "-c", DRIVER], source, allowance)
    if ran.status == REACHED:
        return replace(ran, status=0)
    return Ran(1, f"{ran.message}it ended before its last line") if ran.status == 0 else ran


def run_command(command: Sequence[str], given: str, allowance: Allowance | None = None) -> Ran:
    """Run a command in an empty folder with `given` on its stdin. Raises ConfigError where it cannot be started."""
    allowance = allowance or Allowance()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(given.encode(errors="replace"))
        stdin.seek(0)
        process = _started(command, folder, stdin, stderr, allowance)
        try:
            return Ran(process.wait(timeout=allowance.seconds), _last_words(stderr))
        except subprocess.TimeoutExpired:
            return Ran(None, f"not over after {allowance.seconds:g} s")
        finally:
            _kill(process, folder)


def _started(
    command: Sequence[str], folder: str, stdin: IO[bytes], stderr: IO[bytes], allowance: Allowance
) -> subprocess.Popen[bytes]:
    posix = os.name == "posix"
    most = _running() + allowance.processes
    try:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=stderr,  # a file, so that the limit of files is one of output as well
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "HOME": folder},
            start_new_session=True,
            preexec_fn=(lambda: _limit(allowance, most)) if posix else None,
        )
    except OSError as error:
        raise ConfigError(f"verifier: cannot run {command[0]}: {error.strerror}") from None


def _last_words(stderr: IO[bytes]) -> str:
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - LONGEST))
    return stderr.read().decode(errors="replace")


def _running() -> int:
    """How many threads there are on this machine; 0 where it does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return 1 << 15


def _limit(allowance: Allowance, processes: int) -> None:
    cpu = int(allowance.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    resource.setrlimit(resource.RLIMIT_AS, (allowance.memory, allowance.memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowance.file_bytes, allowance.file_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = processes if hard == resource.RLIM_INFINITY else min(processes, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _kill(process: subprocess.Popen[bytes], folder: str) -> None:
    """The program and all that it started, those too that have left its session."""
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    while left := list(_left(folder)):  # those that fork meanwhile stop first
        for sign in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, sign)


def _left(folder: str) -> Iterator[int]:
    """Processes that live in a sandbox's environment (Linux): their HOME is its folder."""
    mark = b"HOME=" + os.fsencode(folder)
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):  # a process that has ended has none
                yield int(path.parent.name)


def command_verifier(command: Sequence[str], prompt: str, text: str) -> bool:
    """Ask a command: it reads {"prompt": ..., "text": ...} and exits with 0 where the text is right."""
    return run_command(command, json.dumps({"prompt": prompt, "text": text})).passed
