"""Several models on one processor: one after another on all cores, or side by side on a core each, as is faster."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile
from time import perf_counter

import numpy as np
import onnxruntime as ort

from octavo.profiles.manifest import Manifest
from octavo.runtime.ort.binding import Calls
from octavo.runtime.ort.cache import Cache
from octavo.runtime.ort.kernels import STOCK, kernels
from octavo.runtime.ort.prepacked import home, ours, processor
from octavo.runtime.ort.session import Model

SMALLEST = 64 << 20  # bytes of one model's weights; below, either takes no time worth a trial
ROUNDS, ROWS, READ, WRITTEN = 2, 2, 32, 4
PROMPT, NEW = 128, 64  # tokens of the query that the seconds are of


@dataclass(frozen=True, slots=True)
class Layout:
    """Models dealt out to `lanes`, each of which runs one call at a time on `threads`."""

    lanes: int
    threads: int

    def __str__(self) -> str:
        lanes, threads = "lane" + "s" * (self.lanes > 1), "thread" + "s" * (self.threads > 1)
        return f"{self.lanes} {lanes} x {self.threads} {threads}"


Open = Callable[[Layout], Sequence[Model]]


def layouts(cores: int, models: int) -> tuple[Layout, ...]:
    """Side by side first: as many lanes as there are cores and models; then one lane with all cores."""
    lanes = max(1, min(cores, models))
    return tuple(dict.fromkeys([Layout(lanes, max(1, cores // lanes)), Layout(1, cores)]))


def quickest(
    manifest: Manifest, candidates: Sequence[Layout], models: int, open_: Open, own: bool | None = None
) -> Layout:
    """The layout in which `models` experts answer one query soonest, as it is remembered, or is found by a trial.

    `open_` gives one model of each lane of a layout, with octavo's kernels or without (`own`). What is found is kept in
    the user's cache folder, for the same files, processor, cores, ONNX Runtime and kernels; where it cannot be kept,
    the next load tries again.
    """
    path = home().parent / "layouts" / f"{name(manifest, candidates, own)}.json"
    if (kept := remembered(path, candidates)) is not None:
        return kept
    seconds = dict.fromkeys(candidates, float("inf"))
    opened = {layout: [calls_of(model) for model in open_(layout)] for layout in candidates}
    for _ in range(ROUNDS):
        for layout, lanes in opened.items():
            turns = -(-models // layout.lanes)
            seconds[layout] = min(seconds[layout], turns * together(lanes))
    best = min(candidates, key=seconds.__getitem__)
    keep(path, best, seconds)
    return best


def name(manifest: Manifest, candidates: Sequence[Layout], own: bool | None = None) -> str:
    """Alike only where the same files run on the same processor, by the same kernels."""
    files = sorted(f"{entry.path} {entry.sha256}" for entry in manifest.files)
    products = STOCK if own is False else str(kernels())
    told = [ort.__version__, processor(), products, *map(str, candidates), *files]
    return blake2b("\n".join(told).encode(), digest_size=16).hexdigest()


def remembered(path: Path, candidates: Sequence[Layout]) -> Layout | None:
    """What an earlier trial found; None where there is nothing, or anything but one of the candidates."""
    try:
        if path.is_symlink() or not ours(path):
            return None
        told = json.loads(path.read_text())
        return next((each for each in candidates if asdict(each) == told["layout"]), None)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(path: Path, best: Layout, seconds: dict[Layout, float]) -> None:
    """Write it beside, then move it there whole: two processes may do so at once."""
    told = {"layout": asdict(best), "seconds": {str(layout): round(each, 4) for layout, each in seconds.items()}}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, delete=False) as stream:
            json.dump(told, stream)
        Path(stream.name).replace(path)


def together(lanes: Sequence[Calls]) -> float:
    """Seconds of one expert's part of a query where every lane is at such a part, from a few of its calls."""
    with ThreadPoolExecutor(len(lanes)) as threads:
        return max(threads.map(part, lanes))


def part(calls: Calls) -> float:
    """Seconds to read a prompt and write its samples."""
    ids = np.full((1, READ), 3, np.int64)
    begun = perf_counter()
    calls.prefill(0, ids, np.array([READ], np.int32), np.zeros(1, np.int64))
    read, steps = perf_counter() - begun, []
    calls.lengths[:] = READ
    for _ in range(WRITTEN):
        begun = perf_counter()
        calls.lengths += 1
        calls.decode(ROWS)
        steps.append(perf_counter() - begun)
    return read * PROMPT / READ + median(steps) * NEW


def calls_of(model: Model) -> Calls:
    """A small cache of its own, and one call to wake the threads and touch the weights."""
    calls = Calls(model, Cache(model.kv, ROWS, READ + WRITTEN + 1, model.device))
    calls.decode(ROWS)
    return calls
