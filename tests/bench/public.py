"""Results that others published of servers and edge devices, in no fit, beside what `latency` says of them.

`python tests/bench/public.py` prints the table of docs/benchmarks/simulator.md. One line is a series of runs of one
model on one device: so many clients that always have a request running, and the mean time of a token after the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from points import Point

from octavo.profiles import load_hardware, load_model
from octavo.profiles.errors import ConfigError
from octavo.profiles.quantity import Precision
from octavo.simulator.latency import LatencyModel, Physics, Silicon, roofline
from octavo.simulator.latency.choose import fitted, host_of
from octavo.simulator.latency.physics import BEND

TENSTORRENT = "https://github.com/tenstorrent/tt-inference-server/issues"
EDGE_LLM = "https://nvidia.github.io/TensorRT-Edge-LLM/user_guide/performance/performance-benchmarks.html"
Make = Callable[[Point], LatencyModel]


@dataclass(frozen=True)
class Series:
    """`rows` are clients, prompt and answer tokens, and milliseconds per token."""

    device: str
    model: str
    precision: Precision
    shards: int
    engine: str
    source: str
    rows: tuple[tuple[int, int, int, float], ...]

    def points(self) -> Iterator[Point]:
        hardware, model = load_hardware(self.device), load_model(self.model)
        for clients, prompt, answer, milliseconds in self.rows:
            kinds = self.precision, "bf16"
            sizes = self.shards, clients, prompt, answer
            yield Point(hardware, model, "vllm", *kinds, *sizes, milliseconds / 1e3, cached=False)


SERIES = (
    Series(
        *("h100-sxm", "qwen2.5-72b", "bf16", 2, "vLLM, April 2025", f"{TENSTORRENT}/143"),
        ((1, 128, 128, 30.9), (1, 128, 1024, 30.9), (1, 1024, 128, 31.0), (1, 2048, 128, 31.0), (1, 4096, 128, 31.1)),
    ),
    Series(
        *("a100-80", "qwen3-30b-a3b", "bf16", 1, "vLLM, July 2025", f"{TENSTORRENT}/340"),
        ((1, 128, 128, 9.6), (1, 128, 1024, 9.7), (1, 1024, 128, 9.8), (1, 2048, 128, 9.9), (1, 4096, 128, 10.3)),
    ),
    Series(
        *("rtx-4090", "qwen2.5-7b", "bf16", 1, "vLLM, March 2025", f"{TENSTORRENT}/125"),
        ((1, 128, 128, 17.1), (1, 128, 1024, 17.2), (1, 1024, 128, 17.2), (1, 2048, 128, 17.2), (1, 3072, 128, 17.3)),
    ),
    Series(
        *("rtx-4090", "mistral-7b", "bf16", 1, "vLLM, requests/s and TTFT", "https://mushfiqrahman.dev/?p=1668"),
        ((4, 256, 100, 18.6), (8, 256, 100, 20.4), (16, 256, 100, 23.3)),
    ),
    Series(
        *("jetson-agx-thor", "llama-3.1-8b", "fp4", 1, "TensorRT Edge-LLM 0.4", EDGE_LLM),
        ((1, 383, 1, 1e3 / 54.9), (8, 383, 1, 8e3 / 308.7)),
    ),
    Series(
        *("jetson-agx-thor", "llama-3.1-8b", "int4", 1, "TensorRT Edge-LLM 0.4, AWQ", EDGE_LLM),
        ((1, 383, 1, 1e3 / 50.8), (8, 383, 1, 8e3 / 135.3)),
    ),
)


def by_silicon(p: Point) -> LatencyModel:
    host, band = host_of("vllm")
    return Silicon(p.hardware.name, "vllm", p.model, p.precision, p.kv_precision, p.shards, host=host, band=band)


def by_fit(p: Point) -> LatencyModel:
    coefficients, band = fitted("servers")
    return Physics("", coefficients, band, BEND, p.hardware, p.model, p.precision, p.kv_precision, p.shards)


def by_roofline(p: Point) -> LatencyModel:
    return roofline(p.hardware, p.model, p.precision, p.kv_precision, p.shards)


def seconds(p: Point, latency: LatencyModel) -> float:
    """A single token's (`answer` 1) is that of decoding alone, as a bench of one batch has it."""
    if p.answer == 1:
        return latency.decode(p.clients, p.clients * p.prompt).seconds
    return p.of(latency)


def errors(series: Series, make: Make) -> list[float]:
    """Raises ConfigError where the source knows no such device or model."""
    return [seconds(p, make(p)) / p.tpot - 1 for p in series.points()]


def cell(series: Series, make: Make) -> str:
    try:
        found = errors(series, make)
    except ConfigError:
        return "not measured"
    return f"{mean(found):+.1%}" if max(found) - min(found) < 0.05 else f"{min(found):+.1%} to {max(found):+.1%}"


def line(series: Series, makes: Sequence[Make]) -> str:
    shards = f"{series.shards} " if series.shards > 1 else ""
    what = f"{series.model}, {series.precision}, on {shards}{series.device}; [{series.engine}]({series.source})"
    return f"| {what} | {len(series.rows)} | {' | '.join(cell(series, make) for make in makes)} |"


def main() -> None:
    print("| in no fit | points | `silicon` | `fit:servers` | `roofline` |\n|---|---|---|---|---|")
    for series in SERIES:
        print(line(series, (by_silicon, by_fit, by_roofline)))


if __name__ == "__main__":
    main()
