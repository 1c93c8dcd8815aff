"""Fits the step-time physics to published closed-loop operating points, and says how well it predicts unseen ones.

`python tests/bench/silicon.py` prints the table of docs/benchmarks/simulator.md and writes the coefficients.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from octavo.profiles import Hardware, Model, load_hardware, load_model
from octavo.profiles.quantity import Precision
from octavo.simulator.latency import Fit, LatencyModel, Roofline
from octavo.simulator.latency.fit import Coefficients, closed_loop_tpot, fit_coefficients

ROOT = Path(__file__).parents[2]
DATA = ROOT / ".." / "shared" / "data" / "silicon_sample.csv"
OUT = ROOT / "profiles" / "data" / "latency" / "servers.json"
HARDWARE = {"h100_sxm": "h100-sxm", "h200_sxm": "h200", "b200_sxm": "b200"}
MODELS = {"Llama-3.1-8B": "llama-3.1-8b", "Llama-3.1-70B": "llama-3.1-70b"}
CHUNK = 8192


@dataclass(frozen=True)
class Point:
    """So many clients that always have a request running, and the time per output token that was measured."""

    hardware: Hardware
    model: Model
    precision: Precision
    shards: int
    clients: int
    prompt: int
    answer: int
    tpot: float
    odd: bool

    def of(self, latency: LatencyModel) -> float:
        room = self.hardware.memory * 0.9 * self.shards - self.model.weight_bytes(self.precision)
        capacity = room / self.model.kv_bytes_per_token("bf16")
        return closed_loop_tpot(latency, self.clients, self.prompt, self.answer, CHUNK, capacity)

    def fitted(self, c: Coefficients) -> float:
        return self.of(Fit("", c, self.hardware, self.model, self.precision, "bf16", self.shards))

    def roofline(self) -> float:
        return self.of(Roofline(self.hardware, self.model, self.precision, "bf16", self.shards))


def points() -> list[Point]:
    """Dense models on devices that have a profile, aggregated serving. `odd`: a set of 14 runs unlike all others."""
    hardware = {name: load_hardware(ours) for name, ours in HARDWARE.items()}
    models = {name: load_model(ours) for name, ours in MODELS.items()}
    found = []
    with DATA.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            model = next((model for name, model in models.items() if name in row["model_path"]), None)
            if model is not None and row["mode"] == "agg" and row["system"] in hardware:
                shape = (int(row[key]) for key in ("tp_size", "batch_size", "isl", "osl"))
                odd = row["model_path"].startswith("nvidia/")
                tpot = float(row["silicon_tpot_ms"]) / 1e3
                found.append(Point(hardware[row["system"]], model, precision(row), *shape, tpot, odd))
    return found


def precision(row: dict[str, str]) -> Precision:
    said = row["gemm_quant_mode"] or row["precision"]
    return "fp4" if "fp4" in said else "fp8" if "fp8" in said else "bf16"


def fit(some: Sequence[Point]) -> Coefficients:
    return fit_coefficients([point.fitted for point in some], [point.tpot for point in some])


@dataclass(frozen=True)
class Errors:
    """Of predictions: how many, mean and median of the absolute relative error, and its median with its sign."""

    count: int
    mape: float
    median: float
    bias: float

    @staticmethod
    def of(predicted: Sequence[float], some: Sequence[Point]) -> Errors:
        errors = np.array(predicted) / np.array([point.tpot for point in some]) - 1
        return Errors(len(some), *(float(x) for x in (np.mean(abs(errors)), np.median(abs(errors)), np.median(errors))))


def left_out(all_: Sequence[Point], key: Callable[[Point], str]) -> dict[str, Errors]:
    """Each model, or each device, predicted from a fit to all the others."""
    found = {}
    for name in sorted({key(point) for point in all_}):
        c = fit([point for point in all_ if key(point) != name])
        test = [point for point in all_ if key(point) == name]
        usual = [point for point in test if not point.odd]
        found[name] = Errors.of([point.fitted(c) for point in test], test)
        if len(usual) < len(test):
            found[f"{name} without the odd {len(test) - len(usual)}"] = Errors.of([p.fitted(c) for p in usual], usual)
    return found


def main() -> None:
    if not DATA.exists():
        sys.exit(f"{DATA} is not here: published operating points of real servers")
    every = points()
    c = fit(every)
    lines = {
        "roofline, no fit": Errors.of([point.roofline() for point in every], every),
        "fit": Errors.of([point.fitted(c) for point in every], every),
    }
    unseen = [left_out(every, lambda point: point.model.name), left_out(every, lambda point: point.hardware.name)]
    for errors in unseen:
        lines |= {f"not in the fit: {name}": e for name, e in errors.items()}
    print("| | points | MAPE | median | bias |\n|---|---|---|---|---|")
    for name, e in lines.items():
        print(f"| {name} | {e.count} | {e.mape:.1%} | {e.median:.1%} | {e.bias:+.1%} |")
    whole = [e for errors in unseen for name, e in errors.items() if "odd" not in name]
    error = sum(e.mape * e.count for e in whole) / sum(e.count for e in whole)
    data = {
        "name": "servers",
        "description": "Step times of vLLM, SGLang and TensorRT-LLM serving dense models on data-centre GPUs",
        "coefficients": {name: float(f"{value:.4g}") for name, value in asdict(c).items()},
        "error": round(error, 3),
        "residuals": {name: {k: round(v, 4) for k, v in asdict(e).items()} for name, e in lines.items()},
        "source": "fitted to silicon_sample.csv of aiconfigurator-core 0.12.0 (Apache-2.0; measured by InferenceX), "
        "Llama-3.1 8B and 70B on H100, H200 and B200, time per output token in closed loop",
        "date": "2026-04",
    }
    OUT.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
