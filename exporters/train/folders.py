"""Checkpoint folders that are whole or not there: written under another name, renamed at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RECORD = "training.json"


def is_finished(folder: Path, key: str) -> bool:
    """Whether the folder was made, to the end, by the stage with this key."""
    try:
        return bool(json.loads((folder / RECORD).read_text())["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `folder` if all goes well and is removed if not."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
