"""Where profiles are: in the package, in the user's own folder (which wins), or at a path."""

from __future__ import annotations

import os
from datetime import date
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from octavo.profiles import huggingface
from octavo.profiles.errors import ConfigError
from octavo.profiles.problems import suggest
from octavo.profiles.read import Data, read_data

KINDS = ("hardware", "models", "links", "prices", "workloads", "scenarios")
MEASURED = "latency"
"""The kind of what `octavo measure` writes, beside the facts."""
_SUFFIXES = (".yaml", ".yml", ".json")


def user_folder() -> Path:
    """`$OCTAVO_PROFILES`, or octavo/profiles in the user's configuration folder."""
    if own := os.environ.get("OCTAVO_PROFILES"):
        return Path(own)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "octavo" / "profiles"


def built_in(kind: str) -> Traversable:
    """The package's folder of a kind."""
    return files("octavo.profiles") / "data" / kind


def kind_of(word: str) -> str:
    """The kind that a word means: `model` and `models` alike. Raises ConfigError."""
    found = word if word in (*KINDS, MEASURED) else f"{word}s"
    if found not in (*KINDS, MEASURED):
        raise ConfigError(f"{word!r} is no kind of profile -> {suggest(word, (*KINDS, MEASURED))}")
    return found


def named(kind: str, *, own: bool = True) -> dict[str, Path | Traversable]:
    """Every profile of a kind by name, the user's own (where asked for) before the package's."""
    return dict(sorted({**_in(built_in(kind)), **(_in(user_folder() / kind) if own else {})}.items()))


def _in(folder: Path | Traversable) -> dict[str, Path | Traversable]:
    if not folder.is_dir():
        return {}
    return {path.name.rsplit(".", 1)[0]: path for path in folder.iterdir() if path.name.endswith(_SUFFIXES)}


def find(kind: str, name: str, folder: Path | None = None, *, own: bool = True) -> Path | Traversable:
    """The file of a profile: by name, or by a path (seen from `folder`, then from here). Raises ConfigError."""
    if "/" in name or os.sep in name or name.endswith(_SUFFIXES):
        candidates = [*([folder / name] if folder else []), Path(name).expanduser()]
        if found := next((path for path in candidates if path.exists()), None):
            return found
        raise ConfigError(f"{name}: no such file")
    profiles = named(kind, own=own)
    if name not in profiles:
        raise ConfigError(f"{name!r}: no such profile in {kind} -> {suggest(name, profiles)}")
    return profiles[name]


def read(kind: str, name: str, folder: Path | None = None, *, own: bool = True) -> Data:
    """The plain data of a profile; its name is the file's unless it says another. A model may be a checkpoint."""
    path = find(kind, name, folder, own=own)
    if kind == "models" and (config := huggingface.config_in(path)):
        written = date.fromtimestamp(config.stat().st_mtime)
        return huggingface.model_data(read_data(config, name), name, written)
    if not path.is_file():
        raise ConfigError(f"{name}: a folder; a file with a profile is needed")
    data = read_data(path, name)
    return {"name": path.name.rsplit(".", 1)[0], **data}
