"""Which execution provider a model runs on: what the bundle targets, and what this machine really creates."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import onnxruntime as ort

from octavo.profiles.errors import ConfigError, MachineError
from octavo.runtime import trouble
from octavo.runtime.ort.assignment import RECORD, check_assignment
from octavo.runtime.ort.gpu import preload
from octavo.runtime.ort.identity import identity_model

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PREFERENCE = (TENSORRT, CUDA, CPU)
SHORT = {"tensorrt": TENSORRT, "cuda": CUDA, "cpu": CPU}
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True, slots=True)
class Probe:
    """One provider: whether a session really runs on it here, and if not, why not."""

    provider: str
    works: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The provider that was chosen; `fallback` says, in words, what was wanted and why it could not be had."""

    provider: str
    fallback: str | None = None


def probe_providers() -> list[Probe]:
    """Try every provider that this ONNX Runtime was built with, the fastest first, on a graph of one node."""
    built = ort.get_available_providers()
    known = [provider for provider in PREFERENCE if provider in built]
    return [probe(provider) for provider in [*known, *sorted(set(built) - set(PREFERENCE))]]


def probe(provider: str) -> Probe:
    """Create a session of one node on a provider and run it; never raises."""
    version = f"ONNX Runtime {ort.__version__}"
    if provider not in ort.get_available_providers():
        return Probe(provider, False, f"{version} was built without it; {_installed()}")
    with native_messages() as messages:
        try:
            if provider in (CUDA, TENSORRT):
                preload()
            session = ort.InferenceSession(identity_model(1), _quiet(), providers=[provider])
            if session.get_providers()[0] != provider:
                return Probe(provider, False, explain(provider, messages(), session.get_providers()[0]))
            check_assignment("a copy", session, provider, lambda: identity_model(1))
            session.run(None, {"x0": np.ones(1, np.float32)})
        except Exception as error:
            return Probe(provider, False, explain(provider, f"{messages()} {error}", None))
    return Probe(provider, True, version)


def choose_provider(
    targets: Sequence[str],
    wanted: str | None = None,
    *,
    allow_fallback: bool = False,
    try_provider: Callable[[str], Probe] = probe,
) -> Choice:
    """The best provider that a graph was written for and that works here.

    `wanted` (tensorrt, cuda, cpu) asks for one by name. Raises MachineError when what is asked for does not work and no
    fallback is allowed, ConfigError when the name is unknown or the bundle has no graph for it.
    """
    if wanted is not None and wanted not in SHORT:
        raise ConfigError(f"provider: {wanted!r} is none of {', '.join(SHORT)}")
    if wanted and SHORT[wanted] not in targets:
        raise ConfigError(f"provider: the bundle has no graph for {wanted}, only for {', '.join(_short(targets))}")
    failed: list[Probe] = []
    for provider in [SHORT[wanted]] if wanted else [each for each in PREFERENCE if each in targets]:
        attempt = try_provider(provider)
        if attempt.works:
            return Choice(provider)
        failed.append(attempt)
    reason = "; ".join(f"{_short([each.provider])[0]} does not work here: {each.detail}" for each in failed)
    if wanted and allow_fallback:
        chosen = choose_provider([each for each in targets if each != SHORT[wanted]], try_provider=try_provider)
        return Choice(chosen.provider, reason)
    raise MachineError(f"provider: {reason}" + ("; ask for another, or allow a fallback" if wanted else ""))


def check_session(session: Any, provider: str, model: str) -> None:
    """Raise MachineError where a session silently runs on another provider than the one it was opened for."""
    actual = session.get_providers()
    if actual[0] != provider:
        raise MachineError(f"{model}: opened for {provider}, but ONNX Runtime runs it on {actual[0]}")


def explain(provider: str, messages: str, instead: str | None) -> str:
    """A failure in one line: what ONNX Runtime printed, and what helps."""
    lines = [line.strip() for line in messages.replace("\\n", "\n").splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in ("lib", "driver", "CUDA failure", "not found"))]
    reason, meaning = _library(telling or lines), trouble.explain(messages)
    reason = f"{meaning} ({reason})" if meaning else reason
    return f"{reason or 'no reason given'}{f'; it would run on {instead} instead' if instead else ''}"


def _library(lines: list[str]) -> str:
    """The part of a loader's message that names what is missing."""
    for line in lines:
        for mark in ("error: ", "Error: ", "with error: ", "] "):
            if mark in line and ".so" in line:
                return line.rsplit(mark, 1)[-1][:200]
    return lines[0].rsplit("] ", 1)[-1][:200] if lines else ""


def _short(providers: Sequence[str]) -> list[str]:
    names = {value: key for key, value in SHORT.items()}
    return [names.get(provider, provider) for provider in providers]


def _installed() -> str:
    found = []
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if len(found) > 1:
        return f"{' and '.join(found)} are both installed and overwrite each other: uninstall both, install one"
    return f"{found[0] if found else 'no distribution'} is installed"


def _quiet() -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(*RECORD)
    return options


@contextmanager
def native_messages() -> Iterator[Callable[[], str]]:
    """Catch what a library writes to the process's stderr and stdout; gives a function that returns the former."""
    with tempfile.TemporaryFile() as stream:
        saved = os.dup(2)
        os.dup2(stream.fileno(), 2)

        def caught() -> str:
            stream.seek(0)
            return stream.read().decode(errors="replace")

        try:
            with redirect_stdout(io.StringIO()):
                yield caught
        finally:
            os.dup2(saved, 2)
            os.close(saved)
