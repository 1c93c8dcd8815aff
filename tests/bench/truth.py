"""Calibrates the simulator on one load of this machine's own engine, and predicts others: rates, lengths, policies.

    python tests/bench/truth.py serve BUNDLE TASKS FOLDER ROUNDS
    python tests/bench/truth.py table BUNDLE FOLDER

A round serves a short slice of every load, two of the calibration and one of one expert alone, which belongs to it, in
random order, each a run of its own from its own arrivals; so a machine that changes its pace every few seconds is much
the same to all of them once there are some dozens of rounds. `serve` adds rounds to what FOLDER holds, each some
twenty seconds, after half a minute of steps on the bench; `table` simulates every slice and compares percentiles over
all slices of a load.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil

from octavo.profiles.latency import LatencyProfile, Pace
from octavo.runtime.calibration import Calibration, Logged, Seen, logged
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record
from octavo.runtime.handover import handover
from octavo.runtime.local import Octavo
from octavo.runtime.measure import LOAD, bench_of
from octavo.runtime.profiled import Usual, profiled
from octavo.runtime.replay import poisson
from octavo.runtime.steps import Bench
from octavo.runtime.tasks import read_tasks
from octavo.simulator.estimate import Estimate
from octavo.simulator.pace import said
from octavo.simulator.replay import replay
from octavo.simulator.validate import Validation, validate

SECONDS = 1.5
FEWEST = 12  # queries of a slice
BENCH = 24.0
CORES = os.cpu_count() or 1


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
CALIBRATION, ONE = -1, -2  # beside the loads


@dataclass(frozen=True)
class Slice:
    """What was recorded of one load in one round: its trace, and the turns of each lane."""

    trace: list[Record]
    turns: list[list[Logged]]


@dataclass(frozen=True)
class Round:
    """Slices by the number of their load, what the calibration saw, and what share of the processors others used."""

    slices: dict[int, Slice]
    seen: Seen
    others: float


def others_share(before: Any, own: float) -> tuple[Any, float, float]:
    """What other processes used of the machine's processors since `before`."""
    now, spent = psutil.cpu_times(), sum(psutil.Process().cpu_times()[:2])
    if before is None:
        return now, spent, 0.0
    total, idle = (sum(now) - sum(before), now.idle + now.iowait - before.idle - before.iowait)
    return now, spent, max(0.0, total - idle - (spent - own)) / max(total, 1e-9)


def serve(bundle: Path, tasks: Path, folder: Path, rounds: int) -> None:
    """Add rounds to those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [task.prompt for task in read_tasks(tasks)]
    options = {"seed": 1, "max_new_tokens": None, "policy": None}
    with Octavo.load(bundle, keep_records=True) as octavo:
        keep(folder / f"bench-{len(list(folder.glob('bench-*'))):02}.pkl.gz", bench_of(octavo, BENCH, seed=0))
        calibration = Calibration(octavo, texts, options)
        capacity = capacity_of(folder / "capacity.json", calibration)
        first = len(list(folder.glob("round-*")))
        for number in range(first, first + rounds):
            keep(folder / f"round-{number:03}.pkl.gz", one_round(octavo, calibration, texts, capacity, number))
            print(f"round {number}", file=sys.stderr, flush=True)


def capacity_of(path: Path, calibration: Calibration) -> float:
    """Queries a second that the machine answers when many are asked at once, as it was found the first time."""
    if not path.exists():
        path.write_text(json.dumps(median(calibration.rate(1.0) for _ in range(9))))
    return float(json.loads(path.read_text()))


def one_round(octavo: Octavo, calibration: Calibration, texts: list[str], capacity: float, number: int) -> Round:
    rng = random.Random(number)
    order = [CALIBRATION, CALIBRATION, ONE, *range(len(LOADS))]
    rng.shuffle(order)
    calibration.seen, slices = Seen(endings=calibration.seen.endings, handovers=[handover()]), {}
    before, own, _ = others_share(None, 0.0)
    for place, load in enumerate(order):
        rng.shuffle(texts)
        seed = 1000 * (number + 1) + place
        rate = capacity * (LOAD if load < 0 else LOADS[load].share)
        queries = max(FEWEST, round(rate * SECONDS))
        if load == CALIBRATION:
            calibration.serve(rate, queries, seed)
        elif load == ONE:
            calibration.serve_one(rate, queries // 2, seed)
        else:
            options = {"seed": seed, "max_new_tokens": None, "policy": None, **LOADS[load].options}
            slices[load] = Slice(*logged(octavo, poisson(texts, rate, queries, seed), [], **options))
    return Round(slices, calibration.seen, others_share(before, own)[2])


def keep(path: Path, found: object) -> None:
    partial = path.with_suffix(".part")
    with gzip.open(partial, "wb", compresslevel=1) as out:
        pickle.dump(found, out)
    partial.rename(path)


def kept(folder: Path, pattern: str) -> Iterator[Any]:
    for path in sorted(folder.glob(pattern)):
        with gzip.open(path, "rb") as read:
            yield pickle.load(read)


SHOWN = ("ttft_p50", "latency_p50", "latency_p95", "latency_p99", "tpot_p50")
SEEDS = 3
WAYS = ("at one pace", "at the pace of the calibration", "at the pace of the load")


def table(bundle: Path, folder: Path) -> None:
    """Every load that was served beside what is simulated of it, at three paces."""
    rounds, bench, seen = list(kept(folder, "round-*.pkl.gz")), Bench(), Seen()
    for each in kept(folder, "bench-*.pkl.gz"):
        bench.together += each.together
        bench.alone += each.alone
    for each in rounds:
        seen.add(each.seen)
    usual = Usual.of(bench, seen)
    with Octavo.load(bundle) as octavo:
        profiles = profiled(octavo, bench, seen)
    print(f"{len(rounds)} rounds; others used {max(each.others for each in rounds):.0%} of the processors at most")
    print(said(profiles[0].pace))
    with ProcessPoolExecutor() as pool:
        tasks = []
        for number, load in enumerate(LOADS):
            slices = [each.slices[number] for each in rounds]
            paces = [pace_then(usual, each) for each in slices]
            tasks.append(pool.submit(compared, [each.trace for each in slices], paces, profiles, load.name))
        found = dict(enumerate(task.result() for task in tasks))
    for place, way in enumerate(WAYS):
        print(f"\n| {way} | {' | '.join(SHOWN)} |\n|{'---|' * (len(SHOWN) + 1)}")
        for number, ways in found.items():
            print(f"| {LOADS[number].name} | {' | '.join(cell(ways[place][metric].error) for metric in SHOWN)} |")
        means = [mean(abs(ways[place][metric].error.value) for ways in found.values()) for metric in SHOWN]
        print(f"| mean absolute error | {' | '.join(f'{each:.1%}' for each in means)} |")


def cell(error: Estimate) -> str:
    """The error, and its interval."""
    assert error.low is not None
    assert error.high is not None
    return f"{error.value:+.1%} ({error.low:+.0%} to {error.high:+.0%})"


def pace_then(usual: Usual, found: Slice) -> Pace:
    """What its lanes' pace was while a slice was served, beside that of the calibration."""
    (course,), width = usual.courses([found.turns])
    return Pace(seconds=width, lanes=course.tolist())


def compared(
    traces: Sequence[list[Record]], paces: Sequence[Pace], profiles: Sequence[LatencyProfile], name: str
) -> list[Validation]:
    """Of one load: simulated slice by slice, compared over all."""
    measured: list[Record] = []
    steady: list[Record] = []
    known: list[Record] = []
    swinging: list[list[Record]] = [[] for _ in range(SEEDS)]
    for number, (trace, pace) in enumerate(zip(traces, paces, strict=True)):
        steady += numbered(replay(trace, at_pace(profiles, None)), number)
        known += numbered(replay(trace, at_pace(profiles, pace), seed=None), number)
        for seed in range(SEEDS):
            swinging[seed] += numbered(replay(trace, profiles, seed=1000 * number + seed), number)
        measured += numbered(trace, number)
    return [validate(measured, first, name, others=others) for first, *others in ([steady], swinging, [known])]


def at_pace(profiles: Sequence[LatencyProfile], pace: Pace | None) -> list[LatencyProfile]:
    return [profile.model_copy(update={"pace": pace}) for profile in profiles]


def numbered(trace: Sequence[Record], place: int) -> list[Record]:
    """Queries of different slices have different numbers."""
    for record in trace:
        if isinstance(record, QueryRecord | InferenceRecord):
            record.query += place * 1_000_000
    return list(trace)


def main() -> None:
    match sys.argv[1:]:
        case ["serve", bundle, tasks, folder, rounds]:
            serve(Path(bundle), Path(tasks), Path(folder), int(rounds))
        case ["table", bundle, folder]:
            table(Path(bundle), Path(folder))
        case _:
            sys.exit(str(__doc__))


if __name__ == "__main__":
    main()
