"""Weights in the layout of this processor's kernels, written once and mapped by every process that opens them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from octavo.profiles.errors import MachineError
from octavo.profiles.manifest import Manifest, Weights, sha256_of

MODEL, DATA, LIST = "model.onnx", "weights.bin", "files.json"
SMALLEST = "1024"  # bytes of a weight that is kept outside the graph
SHORT = 8  # tokens
Open = Callable[[Any], Any]


def prepacked(manifest: Manifest, weights: Weights, options: Any, open_: Open, *, verify: bool = True) -> Path:
    """The graph whose weights are prepacked, made with `open_(options)` where it is not kept yet.

    It is kept under the user's cache folder, named after the hashes of the bundle's files, ONNX Runtime's version and
    the processor. What is kept is used as it was written or not at all: anything else in the folder, a link, another
    size or (unless `verify` is False) another hash, and it is made again. Raises MachineError where it cannot be
    written, or gives other outputs than the bundle's own graph: ONNX Runtime forgets to keep what a kernel packs
    together from a large and a small weight, and only a call shows it.
    """
    folder = home() / name(manifest, weights)
    try:
        if not whole(folder, verify=verify):
            make(folder, options, open_)
    except OSError as error:
        raise MachineError(f"{folder}: prepacked weights cannot be kept: {error.strerror}") from None
    return folder / MODEL


def home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo" / "prepacked"


def name(manifest: Manifest, weights: Weights) -> str:
    """Alike only where the same kernels read the same weights."""
    hashes = {entry.path: entry.sha256 for entry in manifest.files}
    files = [hashes[path] for path in (weights.model, *sorted(weights.locations.values()))]
    return blake2b("\n".join([ort.__version__, processor(), *files]).encode(), digest_size=16).hexdigest()


def processor() -> str:
    """The instructions that it has: kernels, and with them layouts, are chosen by these."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = (line for line in lines if line.startswith(("flags", "Features")))
    return f"{platform.machine()} {next(found, platform.processor())}"


def whole(folder: Path, *, verify: bool = True) -> bool:
    """Whether the folder holds what was written there: these regular files of this user, nothing else."""
    if not (folder / LIST).is_file() or not ours(folder):
        return False
    listed: dict[str, list[Any]] = json.loads((folder / LIST).read_text())
    if {path.name for path in folder.iterdir()} != {*listed, LIST} or not {*listed} <= {MODEL, DATA}:
        return False
    for each, (size, digest) in listed.items():
        path = folder / each
        if path.is_symlink() or not path.is_file() or path.stat().st_size != size:
            return False
        if verify and sha256_of(path) != digest:
            return False
    return True


def ours(folder: Path) -> bool:
    """Whether only this user can have written there."""
    if folder.is_symlink():
        return False
    stat = folder.stat()
    return not hasattr(os, "getuid") or (stat.st_uid == os.getuid() and not stat.st_mode & 0o022)


def make(folder: Path, options: Any, open_: Open) -> None:
    """Let ONNX Runtime write it beside, then move it there whole: two processes may do so at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        options.optimized_model_filepath = str(fresh / MODEL)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", DATA)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", SMALLEST)
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
        session = open_(options)
        if not alike(session, ort.InferenceSession(fresh / MODEL, providers=["CPUExecutionProvider"])):
            raise MachineError("its weights cannot be kept prepacked: they give other outputs; load it without prepack")
        files = sorted(path for path in fresh.iterdir())
        listed = {path.name: [path.stat().st_size, sha256_of(path)] for path in files}
        (fresh / LIST).write_text(json.dumps(listed))
        replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def alike(session: Any, other: Any) -> bool:
    """Whether two sessions of one model compute the same of a short prompt."""
    feeds = {entry.name: feed(entry) for entry in session.get_inputs()}
    return all(
        np.array_equal(one, two) for one, two in zip(session.run(None, feeds), other.run(None, feeds), strict=True)
    )


def feed(entry: Any) -> Any:
    """What an input of a model is in a prompt of SHORT tokens in one row of a cache."""
    if entry.name.startswith("past_key_values."):
        dtype = np.float16 if "float16" in entry.type else np.float32
        return np.zeros((1, entry.shape[1], SHORT, entry.shape[3]), dtype)
    values = {
        "input_ids": np.arange(SHORT)[None],
        "lengths": np.array([SHORT], np.int32),
        "total_length": np.array([SHORT], np.int32),
        "logit_positions": np.array([[SHORT - 1]]),
    }
    return values.get(entry.name, np.zeros(1, np.int64))


def replace(fresh: Path, folder: Path) -> None:
    """Put a folder in another's place; where a neighbour was quicker, and did it well, keep the neighbour's."""
    if folder.exists() and not whole(folder):
        shutil.rmtree(folder)
    try:
        fresh.rename(folder)
    except OSError:
        if not whole(folder):
            raise
