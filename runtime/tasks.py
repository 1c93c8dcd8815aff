"""Task files and the functions that judge answers: what an evaluation is about."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import shlex
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.runtime.contents import Label, normal
from octavo.runtime.datasets import Task, adapted, last_number
from octavo.runtime.sandbox import command_verifier

GZIP = b"\x1f\x8b"  # how a compressed file begins
Verify = Callable[[str, str], bool]


def read_tasks(path: Path, limit: int | None = None) -> list[Task]:
    """Tasks of a JSON Lines file: `prompt`, and perhaps `id` and `reference` (or `answer`); or HumanEval, MBPP, GSM8K.

    A file named .json is one list of them, as the sanitized MBPP is. It may be compressed by gzip, as HumanEval is.
    Parquet, as the Hub keeps all three, needs pyarrow.

    Raises ConfigError naming file and line.
    """
    lines = _lines(path)
    tasks = [_task(line, f"{path}:{number}", number) for number, line in enumerate(lines, 1) if line.strip()]
    if not tasks:
        raise ConfigError(f"{path}:1: no tasks in it; write a JSON object with a `prompt` on each line")
    seen: dict[str, int] = {}
    for number, task in enumerate(tasks, 1):
        if task.id in seen:
            raise ConfigError(f"{path}: tasks {seen[task.id]} and {number} have the same id {task.id!r}")
        seen[task.id] = number
    return tasks[:limit]


def _lines(path: Path) -> list[str]:
    """A task each, as JSON."""
    if path.suffix == ".parquet":
        return _stored(path)
    text = _text(path)
    return _listed(text, path) if path.name.removesuffix(".gz").endswith(".json") else text.split("\n")


def _stored(path: Path) -> list[str]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ConfigError(f"{path}: reading Parquet takes pyarrow; pip install pyarrow") from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise ConfigError(f"{path}: not a Parquet file: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    return [json.dumps(row, default=str) for row in rows]


def _text(path: Path) -> str:
    """A file's text, with or without a byte-order mark, compressed or not."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data.startswith(GZIP) else data).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ConfigError(f"{path}: its compressed data are cut off or broken") from None
    except OSError as error:
        what = "a task file has a JSON object with a `prompt` on each line"
        raise ConfigError(f"{path}: {error.strerror}; {what}") from None


def _listed(text: str, path: Path) -> list[str]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(rows, list):
        raise ConfigError(f"{path}: must be a list of tasks; name a file with a task on each line .jsonl")
    return [json.dumps(row) for row in rows]


def _task(line: str, where: str, number: int) -> Task:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON: {error}") from None
    try:
        task = adapted(row, number) if isinstance(row, dict) else None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if task is not None:
        return task
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"]:
        raise ConfigError(f"{where}: a task is a JSON object with a `prompt` that is a text, got {line[:80]}")
    reference = row.get("reference", row.get("answer"))
    if reference is not None and not isinstance(reference, str | int | float):
        raise ConfigError(f"{where}: reference must be a text, got {reference!r}")
    return Task(str(row.get("id", number)), row["prompt"], None if reference is None else str(reference))


def load_verifier(name: str) -> Verify:
    """A function by its name, or `command:PROGRAM ARGUMENTS`, run in a process of its own with limits."""
    if name.startswith("command:"):
        command = shlex.split(name.removeprefix("command:"))
        if not command:
            raise ConfigError("verifier: command: names no program")
        return partial(command_verifier, command)
    return load_function(name, "verifier")


def load_function(name: str, key: str) -> Callable[..., Any]:
    """A function by `module:function` or `file.py:function`. Raises ConfigError naming what is missing."""
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise ConfigError(f"{key}: {name!r} must be module:function or file.py:function")
    module = _load_file(Path(source), key) if source.endswith(".py") else _load_module(source, key)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"{key}: {source} has no function {attribute!r}")
    return function  # type: ignore[no-any-return]


def _load_module(source: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(source)
    except ImportError as error:
        raise ConfigError(f"{key}: cannot import {source}: {error}") from None


def _load_file(path: Path, key: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{key}: {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{key}: {path} fails when it is loaded: {error!r}") from None
    return module


@dataclass(frozen=True, slots=True)
class Checker:
    """Whether a text is right: by the verifier, or else by the task's tests, or by being the reference.

    `label` finds what a vote counts; None is the text itself, white space aside, or its last number where the task is
    numeric. A verifier that raises has said no.
    """

    verify: Verify | None = None
    label: Label | None = None

    @classmethod
    def named(cls, verifier: str | None, answer: str | None) -> Checker:
        """By the names of a verifier and of a label function."""
        verify = load_verifier(verifier) if verifier else None
        return cls(verify, load_function(answer, "answer") if answer else None)

    def label_of(self, task: Task) -> Label:
        return self.label or (last_number if task.numeric else normal)

    def right(self, task: Task, text: str) -> bool:
        if self.verify is not None:
            try:
                return bool(self.verify(task.prompt, text))
            except Exception:  # a verifier is the user's code, and the text may be anything
                return False
        if task.tests is not None:
            return task.passes(text)
        label = self.label_of(task)
        return task.reference is not None and label(text) == label(task.reference)

    def demand(self, tasks: list[Task], source: Path) -> None:
        """Raise ConfigError where nothing says what is right."""
        missing = [task.id for task in tasks if not task.checks_itself]
        if self.verify is None and missing:
            raise ConfigError(f"{source}: task {missing[0]} has no reference; give one, or a verifier")
