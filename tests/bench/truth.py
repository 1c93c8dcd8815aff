"""Calibrates the simulator on one load of this machine's own engine, and predicts others: rates, lengths, policies.

`python tests/bench/truth.py all BUNDLE TASKS FOLDER` does everything unattended and prints the table of
docs/benchmarks/simulator.md, in some three minutes; `measure`, `serve ... NUMBER` for each of LOADS and `table FOLDER`
are its pieces. The machine must be quiet: the table says which share of its processors others used during each load,
how often the kernel took one away from the server, how much slower than in the calibration each core was (the
simulation is told so), and how much longer, and how unevenly, steps took than when they were measured.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
from cores import Cores

from octavo.profiles.latency import read_latency
from octavo.runtime.core.trace import RunRecord, from_lines, to_lines
from octavo.runtime.local import Octavo
from octavo.runtime.measure import LOAD, measure
from octavo.runtime.replay import poisson, serve_load
from octavo.runtime.tasks import read_tasks
from octavo.simulator.replay import pace, replay
from octavo.simulator.validate import validate

QUERIES = 400
QUIET = 0.05
CORES = os.cpu_count() or 1
SHOWN = ("ttft_p50", "latency_p50", "latency_p95", "latency_p99", "tpot_p50", "throughput")


@dataclass(frozen=True)
class Load:
    """A share of what the machine can do, and what is asked of it."""

    share: float
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return ", ".join([f"{self.share:.0%} of capacity", *(f"{key} {value}" for key, value in self.options.items())])


LOADS = (
    *(Load(share, {}) for share in (0.3, 0.5, 0.7, 0.9)),
    Load(0.5, {"max_new_tokens": 8}),
    Load(0.5, {"policy": "single"}),
    Load(0.5, {"policy": "early_exit"}),
    Load(0.5, {"policy": "majority"}),
)


class Company:
    """What else ran on the machine since the last look: others' share of its processors, and switches forced on us."""

    def __init__(self) -> None:
        self.last = self._now()

    def look(self) -> dict[str, float]:
        before, self.last = self.last, self._now()
        used, own, total, forced = (now - then for now, then in zip(self.last, before, strict=True))
        return {
            "others": max(used - own, 0.0) / max(total, 1e-9),
            "forced_per_second": forced / max(total, 1e-9) * CORES,
        }

    @staticmethod
    def _now() -> tuple[float, float, float, float]:
        times, own = psutil.cpu_times(), psutil.Process()
        spent = own.cpu_times()
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        used = total - times.idle - getattr(times, "iowait", 0.0) - times.nice
        return used, spent.user + spent.system, total, float(own.num_ctx_switches().involuntary)


def everything(bundle: Path, tasks: Path, folder: Path) -> None:
    """Measure, serve all loads, and print the table. What was measured or served before is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "measure.json").exists():
        calibrate(bundle, tasks, folder)
    for number, load in enumerate(LOADS):
        if not (folder / f"load-{number}.jsonl").exists():
            print(load.name, file=sys.stderr, flush=True)
            serve(bundle, tasks, folder, number)
    table(folder)


def calibrate(bundle: Path, tasks: Path, folder: Path) -> None:
    """Measure, and note how fast the cores were while loads were served for it."""
    folder.mkdir(parents=True, exist_ok=True)
    marks: dict[str, float] = {}

    def told(stage: str, _: float) -> None:
        if stage == "calibrating" and stage not in marks:
            marks[stage] = 0.0
            pin(cores.count)
            cores.mark()

    with Cores(folder) as cores:
        measure(bundle, prompts=tasks, queries=QUERIES // 2, seconds=20.0, out=folder, progress=told)
        (folder / "cores.json").write_text(json.dumps(cores.kept()))


def serve(bundle: Path, tasks: Path, folder: Path, number: int) -> None:
    """Serve one of the loads, a lane on each core, and keep its trace, how fast the cores were, and what else ran."""
    load, capacity = LOADS[number], json.loads((folder / "measure.json").read_text())["rate"] / LOAD
    texts = [task.prompt for task in read_tasks(tasks)]
    options = {"seed": 1, "max_new_tokens": None, "policy": None, **load.options}
    with Octavo.load(bundle, keep_records=True) as octavo, Cores(folder) as cores:
        octavo.ask_many(texts[:48], **options)
        pin(len(octavo.placed.lanes))
        company = Company()
        cores.mark()
        real = serve_load(octavo, poisson(texts, load.share * capacity, QUERIES, seed=1), **options)
        (folder / f"company-{number}.json").write_text(json.dumps(company.look() | {"cores": cores.kept()}))
    (folder / f"load-{number}.jsonl").write_text("".join(f"{line}\n" for line in to_lines(real)))


def pin(lanes: int) -> None:
    """Each lane's thread to a core of its own, so that it is known whose speed is whose."""
    for thread in threading.enumerate():
        for lane in range(lanes):
            if thread.name == f"octavo cpu:{lane}" and thread.native_id:
                os.sched_setaffinity(thread.native_id, {lane})


def speed_of(cores: list[list[tuple[float, float]]], usual: float) -> Callable[[str, float], float]:
    """How many times as long as usual a step takes on a core, by the loop that was timed there last."""
    times = [[when for when, _ in core] for core in cores]

    def speed(device: str, now: float) -> float:
        core = int(device.rpartition(":")[2])
        return cores[core][max(0, bisect_right(times[core], now) - 1)][1] / usual

    return speed


def table(folder: Path) -> None:
    """Every load that was served beside what is simulated of it, at the pace that the cores then had."""
    profiles = [read_latency(path) for path in sorted(folder.glob("latency-*.json"))]
    usual = mean(seconds for core in json.loads((folder / "cores.json").read_text()) for _, seconds in core)
    head = ("load", "others' CPU", "forced switches /s", "pace of the cores", "steps, mean", "p95", *SHOWN)
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    alone = True
    for number, load in enumerate(LOADS):
        path = folder / f"load-{number}.jsonl"
        if not path.exists():
            continue
        with path.open(encoding="utf-8") as lines:
            real = list(from_lines(lines, str(path)))
        company = json.loads((folder / f"company-{number}.json").read_text())
        run = next(record for record in real if isinstance(record, RunRecord))
        found = validate(real, replay(real, profiles, speed=speed_of(company["cores"], usual)), load.name)
        cells = " | ".join(f"{found[metric].error.value:+.1%}" for metric in SHOWN)
        longer, slowest = pace(real, run, profiles)
        alone &= company["others"] < QUIET
        cores = " and ".join(f"x{mean(s for _, s in core) / usual:.2f}" for core in company["cores"])
        about = f"{company['others']:.0%} | {company['forced_per_second']:.0f} | {cores}"
        print(f"| {load.name} | {about} | x{longer:.2f} | x{slowest:.2f} | {cells} |")
    if not alone:
        print(
            f"\nThe machine was not alone (over {QUIET:.0%} of its processors were others'): these figures say nothing."
        )


def main() -> None:
    match sys.argv[1:]:
        case ["all", bundle, tasks, folder]:
            everything(Path(bundle), Path(tasks), Path(folder))
        case ["measure", bundle, tasks, folder]:
            calibrate(Path(bundle), Path(tasks), Path(folder))
        case ["serve", bundle, tasks, folder, number]:
            serve(Path(bundle), Path(tasks), Path(folder), int(number))
        case ["table", folder]:
            table(Path(folder))
        case _:
            sys.exit(str(__doc__))


if __name__ == "__main__":
    main()
