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
from points import band_of

from octavo.profiles import Hardware, Model, load_hardware, load_model
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.cost import ACTIVE_POWER, COMPUTE_POWER, MEMORY_POWER
from octavo.simulator.latency import Coefficients, LatencyModel, Physics, roofline
from octavo.simulator.latency.choose import fitted
from octavo.simulator.latency.fit import fit_coefficients
from octavo.simulator.latency.model import EXACT
from octavo.simulator.latency.physics import BEND
from octavo.simulator.latency.work import Work

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
    whole: float
    share: float
    """Of the devices' rated power, on average over the `whole` seconds of all tokens; zero: it was not measured."""

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
                times = (float(row[key]) / 1e3 for key in ("prompt_time", "token_time", "e2e_time"))
                found.append(Row(models[row["model"]], device, *sizes, *times, float(row["average_power"])))
    return found


def utilisations(row: Row) -> tuple[float, float]:
    """Shares of the reached bandwidth and FLOP/s that a device was at, on average over all tokens."""
    work, batch, later = Work(row.model, "bf16", "bf16"), row.batch, row.tokens - 1
    seen = row.model.layers * batch * later * (row.prompt + row.tokens / 2)
    flops = batch * (row.prompt + later) * work.token_flops
    flops += (row.model.layers * batch * row.prompt**2 / 2 + seen) * work.attention_flops_per_token
    moved = row.tokens * work.weight_bytes(batch) + seen * work.kv_bytes_per_token
    reached = row.hardware.bandwidth * row.hardware.bandwidth_efficiency
    computed = row.hardware.flops_at("bf16") * row.hardware.flops_efficiency
    return moved / reached / row.shards / row.whole, flops / computed / row.shards / row.whole


def powers(all_: Sequence[Row]) -> list[Row]:
    """With a mean power: on A100s, batches of 128 tokens. Prompts of 8192 are left out: they ran for seconds at the
    peak, and the mean that is noted of most is less than half of any other's.
    """
    return [row for row in all_ if row.share > 0 and row.prompt < 8192]


def power_share(row: Row, parts: Sequence[float]) -> float:
    """Of the rated power, by the parts that a running step, bandwidth and FLOP/s have in what is above idle."""
    idle = row.hardware.idle_watts / row.hardware.peak_watts
    memory, compute = utilisations(row)
    return float(idle + (1 - idle) * min(1.0, parts[0] + parts[1] * memory + parts[2] * compute))


def fit_power(some: Sequence[Row]) -> tuple[float, ...]:
    """Least squares."""
    idle = np.array([row.hardware.idle_watts / row.hardware.peak_watts for row in some])
    above = (np.array([row.share for row in some]) - idle) / (1 - idle)
    return tuple(map(float, np.linalg.lstsq(np.array([(1.0, *utilisations(row)) for row in some]), above)[0]))


def power_error(some: Sequence[Row], parts: Sequence[float]) -> tuple[float, float]:
    """Mean of the absolute relative errors, and the median error."""
    errors = [power_share(row, parts) / row.share - 1 for row in some]
    return float(np.mean(np.abs(errors))), float(np.median(errors))


def show_power(all_: Sequence[Row]) -> None:
    """By what ships, and of each model and degree of parallelism from a fit to the others."""
    drawn = powers(all_)
    print("\n| power | points | MAPE | median |\n|---|---|---|---|")
    lines = {"as simulated": (drawn, (ACTIVE_POWER, MEMORY_POWER, COMPUTE_POWER))}
    for name, shards in dict.fromkeys((row.model.name, row.shards) for row in drawn):
        left = [row for row in drawn if (row.model.name, row.shards) == (name, shards)]
        lines[f"{name} on {shards}, fitted without"] = (left, fit_power([row for row in drawn if row not in left]))
    for name, (some, parts) in lines.items():
        mape, middle = power_error(some, parts)
        print(f"| {name} | {len(some)} | {mape:.1%} | {middle:+.1%} |")


def physics(row: Row, c: Coefficients) -> Physics:
    return Physics("", c, EXACT, BEND, row.hardware, row.model, tensor_parallel=row.shards)


def fit(some: Sequence[Row]) -> Coefficients:
    """Both phases alike."""
    predictions = [partial(lambda row, c: row.prefill(physics(row, c)), row) for row in some]
    predictions += [partial(lambda row, c: row.decode(physics(row, c)), row) for row in some]
    return fit_coefficients(predictions, [*(row.first for row in some), *(row.later for row in some)]).shared


def show(name: str, some: Sequence[Row], make: Make) -> list[float]:
    """A line per model, device and phase. Returns the errors."""
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
            every += ratios
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
    show_power(all_)
    data = {
        "name": "servers-2023",
        "description": "Step times of an engine of 2023 that launched every kernel by itself, dense models in 16 bits",
        "coefficients": {name: float(f"{value:.4g}") for name, value in asdict(then).items()},
        "error": round(float(np.mean(np.abs(unseen))), 3),
        "band": band_of([1 / (1 + error) for error in unseen]),
        "source": "fitted to perf_model.csv of splitwise-sim (MIT; Patel et al., ISCA 2024), Llama-2-70B and BLOOM "
        "on A100 and H100",
        "date": "2023-11",
    }
    OUT.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
