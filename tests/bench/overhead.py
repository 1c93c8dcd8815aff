"""One ensemble query, and many at once, against other engines: processor seconds on one thread, in turns.

    python tests/bench/runtime.py BUNDLE CHECKPOINT [CHECKPOINT ...]

The checkpoints are those that the bundle was exported from. Engines that are not installed are left out. Each engine
writes the same 64 tokens greedily, two samples an expert, after a prompt of 128 tokens; end tokens end nothing. Seconds
are user and system time of this process, the least of the rounds; wall time would measure the neighbours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import process_time, thread_time
from typing import Any

import numpy as np
import psutil

from octavo.runtime.local import Octavo

PROMPT, NEW, SAMPLES, ROUNDS, OPEN = 128, 64, 2, 3, 32
Run = Callable[[], None]


def ours(bundle: Path, prompt: Any) -> tuple[Octavo, Run]:
    octavo = Octavo.load(bundle, devices=["cpu:0"], threads=1, context=PROMPT + NEW, samples=SAMPLES, verify=False)
    options: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": NEW, "ends": False, "policy": "mean_logprob"}

    def run() -> None:
        octavo.ask(prompt, **options)

    return octavo, run


def transformers_generate(folders: list[Path], prompt: Any) -> Run:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders]
    ids = torch.tensor(np.tile(prompt, (SAMPLES, 1)))

    def run() -> None:
        with torch.no_grad():
            for model in models:
                model.generate(ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)

    return run


def genai(folder: Path, prompt: Any) -> Run:
    """A folder with one genai model for each expert, as its own builder made them."""
    import onnxruntime_genai as og

    models = [og.Model(str(each)) for each in sorted(folder.iterdir())]

    def run() -> None:
        for model in models:
            params = og.GeneratorParams(model)
            params.set_search_options(max_length=PROMPT + NEW, min_length=PROMPT + NEW, batch_size=SAMPLES)
            generator = og.Generator(model, params)
            generator.append_tokens(np.tile(prompt, (SAMPLES, 1)))
            while not generator.is_done():
                generator.generate_next_token()

    return run


def cost(run: Run) -> float:
    begun = process_time()
    run()
    return process_time() - begun


def outside(octavo: Octavo, run: Run) -> tuple[float, float]:
    """Seconds of the device's thread in a run, and the share of them that is not ONNX Runtime's."""
    spent = {"inside": 0.0, "all": 0.0}
    lane = octavo.placed.lanes[0]
    sessions = {id(e): e._calls.model.session for e in lane.engines.values() if hasattr(e, "_calls")}
    for session in sessions.values():
        inner = session.run_with_iobinding

        def timed(binding: Any, inner: Callable[[Any], None] = inner) -> None:
            begun = thread_time()
            inner(binding)
            spent["inside"] += thread_time() - begun

        session.run_with_iobinding = timed
    begun = process_time()
    run()
    spent["all"] = process_time() - begun
    for session in sessions.values():
        del session.run_with_iobinding
    return spent["all"], 1 - spent["inside"] / spent["all"]


def main(bundle: Path, folders: list[Path], *others: Path) -> None:
    prompt = np.random.default_rng(0).integers(3, 60, PROMPT)
    before = psutil.Process().memory_info().rss
    octavo, run = ours(bundle, prompt)
    run()
    resident = psutil.Process().memory_info().rss - before
    weights = sum(entry.size for entry in octavo.manifest.files if entry.path.endswith(".bin"))
    engines: dict[str, Run] = {"octavo": run}
    if find_spec("torch") and folders:
        engines["transformers generate"] = transformers_generate(folders, prompt)
    if find_spec("onnxruntime_genai") and others:
        engines["onnxruntime-genai"] = genai(others[0], prompt)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, each in engines.items():
            seconds[name].append(cost(each))
    loaded = [np.random.default_rng(n).integers(3, 60, PROMPT) for n in range(OPEN)]
    options: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": NEW, "ends": False, "policy": "mean_logprob"}
    begun = process_time()
    octavo.ask_many(loaded, **options)
    crowd = (process_time() - begun) / OPEN
    _, share = outside(octavo, run)
    alone = min(seconds["octavo"])
    print(
        json.dumps(
            {
                "experts": len(octavo.ensemble.experts),
                "cpu_seconds_per_query": {name: round(min(found), 3) for name, found in seconds.items()},
                "times_octavo": {name: round(min(found) / alone, 2) for name, found in seconds.items()},
                "cpu_seconds_per_query_of_32_open": round(crowd, 3),
                "gain_of_batching": round(alone / crowd, 2),
                "share_outside_onnxruntime": round(share, 4),
                "resident_over_weights": round(resident / weights, 3),
            },
            indent=2,
        )
    )
    octavo.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
