"""Runs a stranger's program in a process of its own, with limits of time, memory and output.

It keeps a broken program from taking the machine along. It is no jail: a hostile one can still read files and use the
network, so run untrusted models' code in a container as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from octavo.profiles.errors import ConfigError

if os.name == "posix":
    import resource


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a program may use: seconds of time and of processor, bytes of memory and of each file."""

    seconds: float = 10.0
    memory: int = 1 << 30
    file_bytes: int = 1 << 20
    processes: int | None = None

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
    """Run Python source in isolated mode; it passes when it ends without an error."""
    return run_command([sys.executable, "-I", "-"], source, allowance)


def run_command(command: Sequence[str], given: str, allowance: Allowance | None = None) -> Ran:
    """Run a command in an empty folder with `given` on its stdin. Raises ConfigError where it cannot be started."""
    allowance = allowance or Allowance()
    with tempfile.TemporaryDirectory() as folder:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=folder,
                env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "HOME": folder},
                start_new_session=True,
                preexec_fn=(lambda: _limit(allowance)) if os.name == "posix" else None,
            )
        except OSError as error:
            raise ConfigError(f"verifier: cannot run {command[0]}: {error.strerror}") from None
        try:
            _, said = process.communicate(given.encode(), timeout=allowance.seconds)
            return Ran(process.returncode, said.decode(errors="replace")[-500:])
        except subprocess.TimeoutExpired:
            return Ran(None, f"not over after {allowance.seconds:g} s")
        finally:
            _kill(process)


def _limit(allowance: Allowance) -> None:
    cpu = int(allowance.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    resource.setrlimit(resource.RLIMIT_AS, (allowance.memory, allowance.memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowance.file_bytes, allowance.file_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if allowance.processes is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (allowance.processes, allowance.processes))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The program and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    for stream in (process.stdin, process.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def command_verifier(command: Sequence[str], prompt: str, text: str) -> bool:
    """Ask a command: it reads {"prompt": ..., "text": ...} and exits with 0 where the text is right."""
    return run_command(command, json.dumps({"prompt": prompt, "text": text})).passed
