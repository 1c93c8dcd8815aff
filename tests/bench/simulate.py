"""How fast the simulator is: requests and ensemble queries per CPU-second, and bytes kept of each.

`python tests/bench/simulate.py` on workload C1: Llama-2-7B on an A100, chunks of 512, 128 sequences, Poisson arrivals
near capacity, paged KV with preemption. `make compile` first, for the compiled figures.
"""

from __future__ import annotations

import csv
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from octavo.profiles import load_hardware, load_model, load_scenario
from octavo.runtime.core import scheduler
from octavo.runtime.core.policies import policy_named
from octavo.runtime.core.query import Ensemble, Query
from octavo.runtime.core.scheduler import Limits
from octavo.simulator.arrivals import Open
from octavo.simulator.device import Device
from octavo.simulator.independent import Independent
from octavo.simulator.lane import Lane
from octavo.simulator.latency import Physics, roofline
from octavo.simulator.outcomes import Drawn, Outcomes
from octavo.simulator.run import prepare, rare_collections
from octavo.simulator.station import Berth, Station
from octavo.simulator.world import Ask, World

C1 = Path(__file__).parents[2] / ".." / "shared" / "data" / "c1" / "c1_vidur_trace_10000.csv"


def requests(count: int, kind: type[World] = Independent) -> World:
    """C1, repeated as often as it takes."""
    with C1.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    span = float(rows[-1]["arrival_s"]) + 0.25
    rounds = [(i // len(rows) * span, rows[i % len(rows)]) for i in range(count)]
    blank = np.zeros((count, 1))
    outcomes = Outcomes(blank > 0, blank, blank, np.zeros((count, 1), np.int32), [None])
    truth = Drawn(np.array([[int(row["decode_tokens"])] for _, row in rounds]), outcomes, {("llama", 0): 0})
    lane = Lane("llama", ("llama",), Limits(7500, 16, 128, 512), a100(), truth)
    station = Station("llama", "", [Berth(Device("a100", [lane]), lane)])
    asks = [
        Ask(float(row["arrival_s"]) + start, Query(i, int(row["prefill_tokens"]), 4096))
        for i, (start, row) in enumerate(rounds)
    ]
    panel = Ensemble(("llama",), 1)
    return kind(Open(asks), panel, policy_named("single"), {"llama": station}, truth, keep=lambda record: None)


def a100() -> Physics:
    return roofline(load_hardware("a100-80"), load_model("llama-2-7b"))


def ensemble(count: int) -> World:
    """Eight experts twice and sixteen scores a query, chat lengths, on nine H100s."""
    return prepare(load_scenario("single-box", [f"workload.queries={count}"]), 0).world


def measure(name: str, make: Callable[[int], World], count: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    world = make(count)
    start = time.process_time()
    with rare_collections():
        world.run()
    seconds = time.process_time() - start
    kept = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / count
    print(f"| {name} | {count:,} | {seconds:.2f} | {count / seconds:,.0f} | {kept:,.0f} |")


def main() -> None:
    if not C1.exists():
        sys.exit(f"{C1} is not here: workload C1")
    compiled = not scheduler.__file__.endswith(".py")
    print(f"The core is {'compiled' if compiled else 'interpreted'}.\n")
    print("| | count | CPU-s | per CPU-s | bytes each, at most |\n|---|---|---|---|---|")
    for count in (1_000, 10_000, 100_000):
        measure("requests (C1)", requests, count)
    for count in (1_000, 10_000):
        measure("ensemble queries", ensemble, count)


if __name__ == "__main__":
    main()
