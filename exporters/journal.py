"""What an interrupted export had finished, so that the next one keeps it: checked by hash, never trusted."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from octavo.exporters.checkpoint import Checkpoint
from octavo.profiles.manifest import FileEntry, Weights, sha256_of

JOURNAL_NAME = ".finished.json"


class Finished(BaseModel):
    """One finished model: the key of what it was made of, its files, its manifest entries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    files: list[FileEntry]
    weights: list[Weights]


def member_key(checkpoint: Checkpoint, models: dict[str, bytes], settled: str, tokenizer: bytes | None = None) -> str:
    """Equal keys stand for equal exports: the same graphs, and a checkpoint that was not touched in between.

    `settled` is what else decides: in words, whether parity was asked for, the text that scales come from.
    """
    digest = hashlib.sha256(settled.encode() + (tokenizer or b""))
    for model in models.values():
        digest.update(model)
    origin = checkpoint.base or checkpoint.folder
    files = {
        path
        for folder in (origin, checkpoint.folder)
        for ending in ("json", "safetensors", "model", "txt", "jinja")
        for path in folder.glob(f"*.{ending}")
    }  # config, tokenizer and the rest; a traced model's tensors lie in no file that stays
    for path in sorted({tensor.path for tensor in checkpoint.tensors.values()} | files):
        stat = path.stat()
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def note_finished(bundle: Path, folder: str, key: str, weights: list[Weights], known: dict[str, str]) -> None:
    """Write down that the model in `folder` is whole; `known` are the hashes of files that were hashed when written."""
    paths = sorted(path for path in (bundle / folder).iterdir() if path.is_file())
    hashes = {path: known.get(f"{folder}/{path.name}") or sha256_of(path) for path in paths}
    files = [FileEntry(path=path.name, size=path.stat().st_size, sha256=hashes[path]) for path in paths]
    entry = Finished(key=key, files=files, weights=weights)
    (bundle / folder / JOURNAL_NAME).write_text(entry.model_dump_json())


def read_finished(bundle: Path, folder: str, key: str) -> list[Weights] | None:
    """The weights of a model that an earlier export finished; None when it must be made anew."""
    journal = bundle / folder / JOURNAL_NAME
    try:
        entry = Finished.model_validate_json(journal.read_bytes())
    except (OSError, ValidationError):
        return None
    intact = all(_intact(bundle / folder / file.path, file) for file in entry.files)
    return entry.weights if entry.key == key and intact else None


def forget(bundle: Path) -> dict[str, FileEntry]:
    """Remove the journals, for a bundle holds only what its manifest lists; returns the files that they had hashed."""
    known: dict[str, FileEntry] = {}
    for journal in bundle.glob(f"*/{JOURNAL_NAME}"):
        for file in Finished.model_validate_json(journal.read_bytes()).files:
            path = f"{journal.parent.name}/{file.path}"
            known[path] = file.model_copy(update={"path": path})
        journal.unlink()
    return known


def _intact(path: Path, entry: FileEntry) -> bool:
    plain = path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1
    return plain and path.stat().st_size == entry.size and sha256_of(path) == entry.sha256
