"""What a KV cache in int8 costs and saves beside the model's own: decode steps, prompts, bytes, and the distributions.

    python tests/bench/kv.py BUNDLE BUNDLE_INT8 [ROWS ...]

Both hold the same expert. Processor milliseconds of one thread, over caches full of what the model computed of random
tokens (so that no page is the system's page of zeros), in turns, the least of the rounds. The distributions are of the
last tokens of a long text of random tokens: the mean divergence from the first bundle's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np

from octavo.profiles.manifest import read_manifest
from octavo.runtime.ort.binding import Array, Calls
from octavo.runtime.ort.cache import Cache
from octavo.runtime.ort.providers import CPU
from octavo.runtime.ort.session import Device, Model, open_model

CONTEXTS, ROUNDS, COMPARED = (160, 512, 1024, 2040), 5, 32


def opened(bundle: Path) -> Model:
    manifest = read_manifest(bundle)
    expert = manifest.experts[0]
    return open_model(bundle, manifest, expert.name, expert.weights, CPU, Device("cpu"), 1)


def filled(model: Model, rows: int, length: int) -> Calls:
    """Rows that hold `length` tokens, all the same."""
    calls = Calls(model, Cache(model.kv, rows, length + 8, model.device))
    ids = np.random.default_rng(0).integers(4, model.width("logits"), size=(1, length))
    calls.prefill(0, ids, np.array([length], np.int32), np.zeros(1, np.int64))
    for row in range(1, rows):
        calls.cache.copy(0, row, length)
    return calls


def step(calls: Calls, length: int) -> Callable[[], Any]:
    calls.lengths[:] = length + 1
    return lambda: calls.decode(calls.cache.rows)


def prompt(calls: Calls, length: int) -> Callable[[], Any]:
    ids = np.random.default_rng(0).integers(4, 1000, size=(1, length))
    return lambda: calls.prefill(0, ids, np.array([length], np.int32), np.zeros(1, np.int64))


def least(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of each, in turns."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begun = thread_time()
            call()
            found[name] = min(found[name], (thread_time() - begun) * 1e3)
    return found


def written(model: Model, length: int) -> Array:
    """Log-probabilities after each of the last tokens of a text, [tokens, vocabulary]."""
    calls = filled(model, 1, length)
    found = []
    for index, token in enumerate(np.random.default_rng(1).integers(4, 1000, size=COMPARED)):
        calls.ids[0, 0], calls.lengths[0] = token, length + 1 + index % 8
        found.append(calls.decode(1)["logits"][0].astype(np.float64))
    logits = np.stack(found)
    return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


def main(bundles: list[Path], batches: list[int]) -> None:
    models = {str(bundle): opened(bundle) for bundle in bundles}
    for name, model in models.items():
        print(f"{name}: {model.kv.dtype}, {model.kv.bytes_per_token} bytes of KV per token")
    for length in CONTEXTS:
        caches = {name: filled(model, max(batches), length) for name, model in models.items()}
        told = least({name: prompt(calls, length) for name, calls in caches.items()})
        print(f"prompt of {length}: " + ", ".join(f"{ms:.0f} ms" for ms in told.values()))
        for rows in batches:
            calls = {name: filled(model, rows, length) for name, model in models.items()}
            told = least({name: step(each, length) for name, each in calls.items()})
            print(f"{rows} rows over {length} tokens each: " + ", ".join(f"{ms:.1f} ms" for ms in told.values()))
    own, other = (written(model, 1024) for model in models.values())
    kl, equal = (np.exp(own) * (own - other)).sum(-1).mean(), (own.argmax(-1) == other.argmax(-1)).mean()
    print(f"after 1024 tokens: mean KL {kl:.1e}, most likely token equal {equal:.2f}")


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:3]], [int(rows) for rows in sys.argv[3:]] or [2, 16])
