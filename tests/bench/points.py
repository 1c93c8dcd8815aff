"""Published operating points of real servers: so many clients that always have a request running, and a token's time.

silicon_sample.csv of aiconfigurator-core 0.12.0 (Apache-2.0), dense models, aggregated serving. Llama-3.1-70B was
measured by InferenceX, whose scripts draw every length from 80 to 100 % of the nominal one (--random-range-ratio 0.8)
and keep keys and values in fp8 (kv-cache-dtype, kv_cache_config); the others by NVIDIA, whose scripts have lengths of
no spread (aiperf --isl-stddev 0 --osl-stddev 0).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from octavo.profiles import Hardware, Model, load_hardware, load_model
from octavo.profiles.quantity import Precision
from octavo.simulator.latency import LatencyModel
from octavo.simulator.latency.fit import closed_loop_tpot, prompts_first_tpot

ROOT = Path(__file__).parents[2]
DATA = ROOT / ".." / "shared" / "data" / "silicon_sample.csv"
HARDWARE = {"h100_sxm": "h100-sxm", "h200_sxm": "h200", "b200_sxm": "b200"}
MODELS = {"Llama-3.1-8B": "llama-3.1-8b", "Llama-3.1-70B": "llama-3.1-70b"}
SOURCE = (
    "fitted to silicon_sample.csv of aiconfigurator-core 0.12.0 (Apache-2.0; measured by InferenceX and NVIDIA), "
    "Llama-3.1 8B and 70B on H100, H200 and B200, time per output token in closed loop"
)
CHUNK = 8192
INFERENCEX = 0.9
"""Of a nominal length, the mean that InferenceX has run."""
IN_STEP = ("Qwen",)
"""Whose clients began and ended together, under SGLang: they waited for the first token as long as half of all prompts
take (1.2 times that in the median; Llama's 0.4 times)."""
Fitted = TypeVar("Fitted")


@dataclass(frozen=True)
class Point:
    """What was run, and the time per output token that was measured.

    `cached`: the server had seen the prompts before, so that it only decoded. That is how 14 runs are read that
    prefill faster than the data sheet's peak: their token's time is that of decoding alone where answers are long.
    `servers` is how many times the batch the source counts clients: they were shared out by something in front.
    SGLang lets prompts go first; `in_step` are clients that begin and end together there.
    """

    hardware: Hardware
    model: Model
    framework: str
    precision: Precision
    kv_precision: Precision
    shards: int
    clients: int
    prompt: int
    answer: int
    tpot: float
    cached: bool
    servers: int = 1
    in_step: bool = False

    def of(self, latency: LatencyModel) -> float:
        """Seconds per output token."""
        if self.cached:
            return latency.decode(self.clients, self.clients * (self.prompt + self.answer // 2)).seconds
        room = self.hardware.memory * 0.9 * self.shards - self.model.weight_bytes(self.precision)
        capacity = room / self.model.kv_bytes_per_token(self.kv_precision)
        load = self.clients, self.prompt, self.answer, CHUNK, capacity
        if self.framework == "sglang":
            return prompts_first_tpot(latency, *load, in_step=self.in_step)
        return closed_loop_tpot(latency, *load)


def points(
    data: Path = DATA,
    model_names: Mapping[str, str] = MODELS,
    hardware_names: Mapping[str, str] = HARDWARE,
    without: Container[str] = (),
) -> list[Point]:
    """Dense models on devices that have a profile; rows whose id is in `without` are left out."""
    hardware = {name: load_hardware(ours) for name, ours in hardware_names.items()}
    models = {name: load_model(ours) for name, ours in model_names.items()}
    found = []
    with data.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["id"] in without:
                continue
            model = next((model for name, model in models.items() if name in row["model_path"]), None)
            if model is not None and row["mode"] == "agg" and row["system"] in hardware:
                found.append(point(row, model, hardware[row["system"]]))
    return found


def point(row: Mapping[str, str], model: Model, hardware: Hardware) -> Point:
    """What a row says. fp8 with scales of blocks needs other kernels, whatever the model's own checkpoint has."""
    dated = re.search(r"source_file=\d+-\d+-\d+.csv", row["silicon_data_source"]) is not None
    share = INFERENCEX if dated else 1.0
    prompt, answer = (round(share * int(row[key])) for key in ("isl", "osl"))
    noted = re.search(r"silicon_concurrency=(\d+)", row["silicon_data_source"])
    if "block" in row["gemm_quant_mode"]:
        model = model.model_copy(update={"block_scales": True})
    return Point(
        hardware,
        model,
        row["backend"],
        precision(row),
        "fp8" if precision(row) != "bf16" and (dated or row["backend"] == "trtllm") else "bf16",
        int(row["tp_size"]),
        int(row["batch_size"]),
        prompt,
        answer,
        float(row["silicon_tpot_ms"]) / 1e3,
        cached=row["model_path"].startswith("nvidia/"),
        servers=int(noted[1]) // int(row["batch_size"]) if noted else 1,
        in_step=row["model_path"].startswith(IN_STEP),
    )


def precision(row: Mapping[str, str]) -> Precision:
    said = row["gemm_quant_mode"] or row["precision"]
    return "fp4" if "fp4" in said else "fp8" if "fp8" in said else "bf16"


@dataclass(frozen=True)
class Errors:
    """Of predictions: how many, mean and median of the absolute relative error, and its median with its sign.

    `ratios` are what was measured over what was predicted.
    """

    count: int
    mape: float
    median: float
    bias: float
    ratios: tuple[float, ...] = field(default=(), repr=False)

    @staticmethod
    def of(predicted: Sequence[float], some: Sequence[Point]) -> Errors:
        ratios = np.array([point.tpot for point in some]) / np.array(predicted)
        errors = 1 / ratios - 1
        found = (np.mean(abs(errors)), np.median(abs(errors)), np.median(errors))
        return Errors(len(some), *map(float, found), tuple(map(float, ratios)))


def left_out(
    all_: Sequence[Point],
    fit: Callable[[Sequence[Point]], Fitted],
    predict: Callable[[Fitted, Point], float],
    kinds: Iterable[str] = ("model", "hardware"),
) -> dict[str, Errors]:
    """Each model, and each device, predicted from a fit to all the others."""
    found = {}
    for kind in kinds:
        for name in sorted({getattr(point, kind).name for point in all_}):
            fitted = fit([point for point in all_ if getattr(point, kind).name != name])
            test = [point for point in all_ if getattr(point, kind).name == name]
            usual = [point for point in test if not point.cached]
            found[name] = Errors.of([predict(fitted, point) for point in test], test)
            if len(usual) < len(test):
                without = f"{name} without the cached {len(test) - len(usual)}"
                found[without] = Errors.of([predict(fitted, p) for p in usual], usual)
    return found


def show(lines: dict[str, Errors]) -> None:
    print("| | points | MAPE | median | bias |\n|---|---|---|---|---|")
    for name, e in lines.items():
        print(f"| {name} | {e.count} | {e.mape:.1%} | {e.median:.1%} | {e.bias:+.1%} |")


def residuals(lines: dict[str, Errors]) -> dict[str, dict[str, float]]:
    keys = "count", "mape", "median", "bias"
    return {name: {key: round(getattr(e, key), 4) for key in keys} for name, e in lines.items()}


def expected(unseen: dict[str, Errors]) -> float:
    """The mean error on what was left out, all points of it counted."""
    whole = [e for name, e in unseen.items() if "without" not in name]
    return round(sum(e.mape * e.count for e in whole) / sum(e.count for e in whole), 3)


def band(some: Iterable[Errors]) -> list[float]:
    """Of several lots together."""
    return band_of([ratio for e in some for ratio in e.ratios])


def band_of(ratios: Sequence[float]) -> list[float]:
    """By what shares steps are shorter and longer than predicted, in nine of ten of what was measured over that."""
    low, high = np.quantile(ratios, [0.05, 0.95])
    return [round(max(0.0, float(1 - low)), 2), round(max(0.0, float(high - 1)), 2)]
