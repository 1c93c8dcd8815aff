"""Calibrates the simulator on one load of this machine's own engine, and predicts others: rates, lengths, policies.

`python tests/bench/truth.py measure BUNDLE TASKS FOLDER`, then `... serve BUNDLE TASKS FOLDER NUMBER` for each of LOADS
and `... table FOLDER` for the table of docs/benchmarks/simulator.md. The pieces are short, since the machine must be
quiet in each of them: the table says how much longer, and how unevenly, steps took than when they were measured.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.profiles.latency import read_latency
from octavo.runtime.core.trace import RunRecord, from_lines, to_lines
from octavo.runtime.local import Octavo
from octavo.runtime.measure import LOAD, measure
from octavo.runtime.replay import poisson, serve_load
from octavo.runtime.tasks import read_tasks
from octavo.simulator.replay import pace, replay
from octavo.simulator.validate import validate

QUERIES = 400
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


def serve(bundle: Path, tasks: Path, folder: Path, number: int) -> None:
    """Serve one of the loads and keep its trace."""
    load, capacity = LOADS[number], json.loads((folder / "measure.json").read_text())["rate"] / LOAD
    texts = [task.prompt for task in read_tasks(tasks)]
    with Octavo.load(bundle, keep_records=True) as octavo:
        options = {"seed": 1, "max_new_tokens": None, "policy": None, **load.options}
        real = serve_load(octavo, poisson(texts, load.share * capacity, QUERIES, seed=1), **options)
    (folder / f"load-{number}.jsonl").write_text("".join(f"{line}\n" for line in to_lines(real)))


def table(folder: Path) -> None:
    """Every load that was served beside what is simulated of it."""
    profiles = [read_latency(path) for path in sorted(folder.glob("latency-*.json"))]
    print(f"| load | steps, mean | p95 | {' | '.join(SHOWN)} |\n|---|---|---|{'---|' * len(SHOWN)}")
    for number, load in enumerate(LOADS):
        path = folder / f"load-{number}.jsonl"
        if not path.exists():
            continue
        with path.open(encoding="utf-8") as lines:
            real = list(from_lines(lines, str(path)))
        run = next(record for record in real if isinstance(record, RunRecord))
        found = validate(real, replay(real, profiles), load.name)
        cells = " | ".join(f"{found[metric].error.value:+.1%}" for metric in SHOWN)
        mean, slowest = pace(real, run, profiles)
        print(f"| {load.name} | x{mean:.2f} | x{slowest:.2f} | {cells} |")


def main() -> None:
    match sys.argv[1:]:
        case ["measure", bundle, tasks, folder]:
            measure(Path(bundle), prompts=Path(tasks), queries=300, seconds=15.0, out=Path(folder))
        case ["serve", bundle, tasks, folder, number]:
            serve(Path(bundle), Path(tasks), Path(folder), int(number))
        case ["table", folder]:
            table(Path(folder))
        case _:
            sys.exit(str(__doc__))


if __name__ == "__main__":
    main()
