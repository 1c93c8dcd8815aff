"""Which form of the hot modules runs: what mypyc compiled of them, or their Python source. The answers are the same.

`make compile` leaves a stamp with the hash of every source that it compiled. A source tree's compiled modules are used
only while all of those sources are unchanged: Python alone would go on running machine code of text that is gone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Literal

Form = Literal["compiled", "source", "stale"]
ROOT = Path(__file__).resolve().parents[1]
STAMP = ROOT / ".compiled.json"


def digest(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()


def stamp(hashes: Mapping[str, str]) -> None:
    """Note of which text each of these files, relative to the root, has just been compiled."""
    STAMP.write_text(json.dumps(hashes, indent=1) + "\n")


def stamped() -> dict[str, str]:
    """Sources that were compiled, and their hashes then."""
    found: dict[str, str] = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    return found


def form() -> Form:
    """What an import of the hot modules gives. `stale`: they were compiled, but a source has changed since."""
    sources = stamped()
    if not sources:
        from octavo.runtime.core import kv

        return "source" if str(kv.__file__).endswith(".py") else "compiled"
    if any(not (ROOT / path).exists() or digest(ROOT / path) != then for path, then in sources.items()):
        return "stale"
    return "source" if os.environ.get("OCTAVO_PLAIN") == "1" else "compiled"


class Sources:
    """Finds modules in their source, whatever compiled form lies beside it."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self.files.get(name)
        return spec_from_file_location(name, file) if file else None


def prefer_source() -> None:
    """Import from source what was compiled of another text, or all, where OCTAVO_PLAIN=1 asks for it."""
    if STAMP.exists() and form() != "compiled":
        files = {"octavo." + path.removesuffix(".py").replace("/", "."): ROOT / path for path in stamped()}
        sys.meta_path.insert(0, Sources(files))
