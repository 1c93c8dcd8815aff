"""Writing a bundle so that it is there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from octavo.exporters.checkpoint import Checkpoint
from octavo.exporters.journal import forget
from octavo.exporters.vocabulary import TOKENIZER_NAME, converted
from octavo.profiles.errors import ConfigError, MachineError
from octavo.profiles.manifest import MANIFEST_NAME, FileEntry, Manifest, sha256_of

COPIED = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json"),
)
SLACK = 64 * 2**20  # bytes kept free beside the bundle
GENERATION_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


class Workshop:
    """The temporary sibling of a bundle, in which it is made; it takes the bundle's name when it is whole."""

    def __init__(self, out: Path, *, overwrite: bool = False):
        if out.exists() and not overwrite:
            raise ConfigError(f"{out}: exists already; choose another name, or allow it to be overwritten")
        self.out = out
        self.folder = out.with_name(f".{out.name}.partial")
        self.hashes: dict[str, str] = {}  # of files that were hashed when written, by path in the bundle

    def open(self, size: int, folders: Collection[str]) -> None:
        """Make the folder, if the disk has room for `size` bytes. Raises MachineError.

        Of what an interrupted export left, only `folders` are kept.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(self.out.parent).free + sum(path.stat().st_size for path in self.folder.rglob("*"))
        if room < size + SLACK:
            raise MachineError(f"{self.out.parent}: {room / 1e9:.1f} GB free, the bundle needs {size / 1e9:.1f} GB")
        self.folder.mkdir(exist_ok=True)
        for left in self.folder.iterdir():
            if left.name not in folders:
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def file_entries(self) -> list[FileEntry]:
        """Every file made so far, hashed; the journals of finished models are removed first."""
        known = forget(self.folder)
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [known.get(path.relative_to(self.folder).as_posix()) or self._entry(path) for path in paths]

    def _entry(self, path: Path) -> FileEntry:
        name = path.relative_to(self.folder).as_posix()
        return FileEntry(path=name, size=path.stat().st_size, sha256=self.hashes.get(name) or sha256_of(path))

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest, then let the folder take the bundle's name."""
        (self.folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n")
        if self.out.exists():
            old = self.out.with_name(f".{self.out.name}.replaced")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(self.out, old)
            os.replace(self.folder, self.out)
            shutil.rmtree(old)
        else:
            os.replace(self.folder, self.out)


def copy_companions(
    checkpoint: Checkpoint, folder: Path, adapter: Path | None = None, tokenizer: bytes | None = None
) -> None:
    """Copy config and tokenizer files, never as links, and write a generation config where there is none.

    An adapter's folder may have a tokenizer of its own; its base has the rest. `tokenizer` is written in its place. A
    tokenizer that is there in an older form is written in the newer one.
    """
    for name in COPIED:
        source = companion(name, checkpoint, adapter)
        if source is not None:
            common = tokenizer if name == TOKENIZER_NAME else None
            (folder / name).write_bytes(source.read_bytes() if common is None else common)
    if not (folder / TOKENIZER_NAME).exists() and (made := converted(checkpoint.base or checkpoint.folder)):
        (folder / TOKENIZER_NAME).write_bytes(made)
    generation = folder / "generation_config.json"
    if not generation.exists():
        found = {key: checkpoint.config[key] for key in GENERATION_KEYS if checkpoint.config.get(key) is not None}
        generation.write_text(json.dumps(found, indent=2) + "\n")


def companion(name: str, checkpoint: Checkpoint, adapter: Path | None = None) -> Path | None:
    """Where a checkpoint's file of this name lies: in its folder or its base's; None where nobody has it."""
    places = [place for place in (adapter, checkpoint.folder, checkpoint.base) if place is not None]
    return next((place / name for place in places if (place / name).is_file()), None)


def folder_names(paths: Iterable[Path]) -> list[str]:
    """A folder name for each checkpoint: its own name, made plain and unique."""
    names: list[str] = []
    for path in paths:
        plain = "".join(c if c.isalnum() or c in "._-" else "-" for c in path.resolve().name).strip(".") or "expert"
        taken = sum(name == plain or name.startswith(f"{plain}~") for name in names)
        names.append(f"{plain}~{taken + 1}" if taken else plain)
    return names
