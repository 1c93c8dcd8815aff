"""Prefill, decode and power of Llama-2-70B as Splitwise measured them, beside the roofline and the shipped fit.

`python tests/bench/splitwise.py` prints the table of docs/benchmarks/simulator.md. Nothing of it was in the fit.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from octavo.profiles import load_hardware, load_model
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.latency import LatencyModel, Physics, roofline
from octavo.simulator.latency.choose import fitted
from octavo.simulator.latency.physics import BEND

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "splitwise" / "perf_model.csv"
HARDWARE = {"a100-80gb": "a100-80", "h100-80gb": "h100-sxm"}


def models() -> dict[str, Callable[[str, int], LatencyModel]]:
    model, (coefficients, error) = load_model("llama-2-70b"), fitted("servers")

    def stated(name: str, shards: int) -> LatencyModel:
        return roofline(load_hardware(HARDWARE[name]), model, tensor_parallel=shards)

    def fit(name: str, shards: int) -> LatencyModel:
        hardware = load_hardware(HARDWARE[name])
        return Physics("fit servers", coefficients, error, BEND, hardware, model, tensor_parallel=shards)

    return {"roofline": stated, "fit:servers": fit}


def errors(make: Callable[[str, int], LatencyModel]) -> dict[tuple[str, str], list[float]]:
    """Relative errors by device and phase."""
    found: dict[tuple[str, str], list[float]] = {}
    made: dict[tuple[str, int], LatencyModel] = {}
    with DATA.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["model"] != "llama2-70b" or row["hardware"] not in HARDWARE:
                continue
            key = row["hardware"], int(row["tensor_parallel"])
            latency = made.setdefault(key, make(*key))
            prompt, batch, tokens = int(row["prompt_size"]), int(row["batch_size"]), int(row["token_size"])
            chunks = [Chunk(Prompt(0, prompt, ()), 0, prompt)] * batch
            first = latency.mixed(0, 0, chunks) / (float(row["prompt_time"]) / 1e3) - 1
            later = latency.decode(batch, batch * (prompt + tokens // 2)).seconds
            found.setdefault((row["hardware"], "prefill"), []).append(first)
            found.setdefault((row["hardware"], "decode"), []).append(later / (float(row["token_time"]) / 1e3) - 1)
    return found


def main() -> None:
    if not DATA.exists():
        sys.exit(f"{DATA} is not here: Splitwise's measurements")
    print("| | device | phase | points | MAPE | median |\n|---|---|---|---|---|---|")
    for name, make in models().items():
        for (hardware, phase), each in errors(make).items():
            mape, middle = np.mean(np.abs(each)), np.median(each)
            print(f"| {name} | {hardware} | {phase} | {len(each)} | {mape:.1%} | {middle:+.1%} |")


if __name__ == "__main__":
    main()
