"""What an evaluation has sampled so far, in a file that grows task by task: one that was interrupted goes on there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.runtime.sampled import Sampled

NAME = "unfinished.jsonl"


@contextmanager
def keeping(out: Path | None, made: Mapping[str, Any]) -> Iterator[Kept | None]:
    """What is kept in the folder `out`, if there is one, until the block ends without an error."""
    if out is None:
        yield None
        return
    kept = Kept(out, made)
    try:
        yield kept
    except BaseException:
        kept.close(done=kept.empty)
        raise
    kept.close(done=True)


class Kept:
    """A file in the folder `out`; its first line says how it was made, each other is a task's candidates of one stage.

    Raises ConfigError where the file was made otherwise, or cannot be written.
    """

    def __init__(self, out: Path, made: Mapping[str, Any]) -> None:
        self._path = out / NAME
        self._found: dict[str, dict[str, list[Sampled]]] = {}
        made = json.loads(json.dumps(made))
        try:
            out.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                self._read(made)
            else:
                self._path.write_text(json.dumps(made) + "\n", encoding="utf-8")
            self._stream = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{out}: cannot write the evaluation: {error.strerror}") from None

    @property
    def empty(self) -> bool:
        return not self._found

    def of(self, stage: str) -> dict[str, list[Sampled]]:
        """The candidates of a stage's finished tasks, by the tasks' ids."""
        return dict(self._found.get(stage, {}))

    def add(self, stage: str, task: str, candidates: Sequence[Sampled]) -> None:
        self._found.setdefault(stage, {})[task] = list(candidates)
        rows = [each.record() for each in candidates]
        self._stream.write(json.dumps({"stage": stage, "task": task, "candidates": rows}) + "\n")
        self._stream.flush()

    def close(self, *, done: bool) -> None:
        """Close the file; what is `done` needs it no more."""
        self._stream.close()
        if done:
            self._path.unlink()

    def _read(self, made: Mapping[str, Any]) -> None:
        """Take over what is there, but for a line that was cut off."""
        text = self._path.read_text(encoding="utf-8")
        head, *lines = text[: text.rfind("\n") + 1].split("\n")[:-1] or ["{}"]
        try:
            before = json.loads(head)
            rows = [json.loads(line) for line in lines]
            for row in rows:
                candidates = [Sampled(**each) for each in row["candidates"]]
                self._found.setdefault(row["stage"], {})[row["task"]] = candidates
        except (ValueError, KeyError, TypeError):
            why = "not an evaluation under way; remove it, or choose another folder"
            raise ConfigError(f"{self._path}: {why}") from None
        for key, value in made.items():
            if before.get(key) != value:
                was = f"{self._path}: an evaluation with {key} {before.get(key)!r} was interrupted, now it is {value!r}"
                raise ConfigError(f"{was}; remove the file, or choose another folder")
        self._path.write_text("".join(f"{line}\n" for line in (head, *lines)), encoding="utf-8")
