"""Prefill, decode and power of Llama-2-70B and BLOOM-176B as Splitwise measured them in 2023 (MIT).

`python tests/bench/splitwise.py` prints the tables of docs/benchmarks/simulator.md and writes the coefficients of an
engine of then, profiles/data/latency/servers-2023.json.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from octavo.profiles import Hardware, Model, load_hardware, load_model
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.latency import Coefficients, LatencyModel, Physics, roofline
from octavo.simulator.latency.choose import fitted
from octavo.simulator.latency.fit import fit_coefficients
from octavo.simulator.latency.physics import BEND

ROOT = Path(__file__).parents[2]
DATA = ROOT / ".." / "shared" / "data" / "splitwise" / "perf_model.csv"
OUT = ROOT / "profiles" / "data" / "latency" / "servers-2023.json"
HARDWARE = {"a100-80gb": "a100-80", "h100-80gb": "h100-sxm"}
BLOOM = {
    "name": "bloom-176b",
    "layers": 70,
    "hidden": 14336,
    "heads": 112,
    "kv_heads": 112,
    "head_dim": 128,
    "intermediate": 57344,
    "vocab": 250880,
    "gated": False,
    "tied_embeddings": True,
    "max_context": 2048,
    "parameters": "176 B",
}
"""bigscience/bloom, config.json."""

Make = Callable[["Row"], LatencyModel]


@dataclass(frozen=True)
class Row:
    """A batch of equal prompts, prefilled in `first` seconds; after it a token takes `later` seconds."""

    model: Model
    hardware: Hardware
    shards: int
    prompt: int
    batch: int
    tokens: int
    first: float
    later: float
    watts: float

    def prefill(self, latency: LatencyModel) -> float:
        return latency.mixed(0, 0, [Chunk(Prompt(0, self.prompt, ()), 0, self.prompt)] * self.batch)

    def decode(self, latency: LatencyModel) -> float:
        return latency.decode(self.batch, self.batch * (self.prompt + self.tokens // 2)).seconds


def rows() -> list[Row]:
    models = {"llama2-70b": load_model("llama-2-70b"), "bloom-176b": Model.model_validate(BLOOM)}
    hardware = {name: load_hardware(ours) for name, ours in HARDWARE.items()}
    found = []
    with DATA.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["hardware"] in hardware:
                device = hardware[row["hardware"]]
                sizes = (int(row[key]) for key in ("tensor_parallel", "prompt_size", "batch_size", "token_size"))
                times = (float(row[key]) / 1e3 for key in ("prompt_time", "token_time"))
                watts = float(row["average_power"]) * device.peak_watts
                found.append(Row(models[row["model"]], device, *sizes, *times, watts))
    return found


def physics(row: Row, c: Coefficients) -> Physics:
    return Physics("", c, 0.0, BEND, row.hardware, row.model, tensor_parallel=row.shards)


def fit(some: Sequence[Row]) -> Coefficients:
    """Both phases alike."""
    predictions = [partial(lambda row, c: row.prefill(physics(row, c)), row) for row in some]
    predictions += [partial(lambda row, c: row.decode(physics(row, c)), row) for row in some]
    return fit_coefficients(predictions, [*(row.first for row in some), *(row.later for row in some)]).shared


def show(name: str, some: Sequence[Row], make: Make) -> list[float]:
    """A line per model, device and phase. Returns the absolute errors."""
    every = []
    for model, device in dict.fromkeys((row.model.name, row.hardware.name) for row in some):
        these = [row for row in some if (row.model.name, row.hardware.name) == (model, device)]
        for phase in ("prefill", "decode"):
            ratios = [
                (row.prefill(make(row)) / row.first if phase == "prefill" else row.decode(make(row)) / row.later) - 1
                for row in these
            ]
            mape, middle = np.mean(np.abs(ratios)), np.median(ratios)
            print(f"| {name} | {model} | {device} | {phase} | {len(ratios)} | {mape:.1%} | {middle:+.1%} |")
            every += [abs(ratio) for ratio in ratios]
    return every


def main() -> None:
    if not DATA.exists():
        sys.exit(f"{DATA} is not here: Splitwise's measurements")
    all_ = rows()
    print("| | model | device | phase | points | MAPE | median |\n|---|---|---|---|---|---|---|")
    show("roofline", all_, lambda row: roofline(row.hardware, row.model, tensor_parallel=row.shards))
    now = fitted("servers")[0]
    show("fit:servers", all_, lambda row: physics(row, now))
    then = fit(all_)
    show("fit to all of these", all_, lambda row: physics(row, then))
    unseen = []
    for kind in ("model", "hardware"):
        for name in sorted({getattr(row, kind).name for row in all_}):
            others = fit([row for row in all_ if getattr(row, kind).name != name])
            left = [row for row in all_ if getattr(row, kind).name == name]
            unseen += show(f"fit without {name}", left, partial(lambda c, row: physics(row, c), others))
    data = {
        "name": "servers-2023",
        "description": "Step times of an engine of 2023 that launched every kernel by itself, dense models in 16 bits",
        "coefficients": {name: float(f"{value:.4g}") for name, value in asdict(then).items()},
        "error": round(float(np.mean(unseen)), 3),
        "source": "fitted to perf_model.csv of splitwise-sim (MIT; Patel et al., ISCA 2024), Llama-2-70B and BLOOM "
        "on A100 and H100",
        "date": "2023-11",
    }
    OUT.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
