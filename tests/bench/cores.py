"""How fast each core is while something else is measured: a loop of the idle class, timed by its own processor time.

A virtual core may share a physical one with somebody else's, and then takes nearly twice as long for everything.
Nothing inside the machine shows that but the time of work that is always alike. The idle class runs in nobody's way.
`python tests/bench/cores.py CORE FILE` is one such loop.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

LOOP = 1_000


class Thing:
    """Something small that has a name and a table."""

    def __init__(self) -> None:
        self.number = 0
        self.table: dict[int, Thing] = {}


def work() -> None:
    """What the interpreter does all day: names, tables, small objects."""
    things, seen = [Thing() for _ in range(50)], {}
    for number in range(LOOP):
        thing = things[number % 50]
        thing.number = number
        thing.table[number & 7] = thing
        seen[number, thing.number] = len(seen)


def probe(core: int, path: Path) -> None:
    """Write down when and how long, until whoever started it is gone."""
    os.sched_setaffinity(0, {core})
    os.nice(19)  # the kernel books its time apart
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    parent = os.getppid()
    with path.open("w", buffering=1, encoding="utf-8") as out:
        while os.getppid() == parent:
            begun = time.thread_time()
            work()
            out.write(f"{time.time():.4f} {time.thread_time() - begun:.9f}\n")


class Cores:
    """Loops on all cores, from entering to leaving."""

    def __init__(self, folder: Path) -> None:
        self._paths = {core: folder / f"core-{core}.txt" for core in sorted(os.sched_getaffinity(0))}
        self._probes: list[subprocess.Popen[bytes]] = []
        self._since = 0.0

    def __enter__(self) -> Cores:
        for core, path in self._paths.items():
            path.write_text("")
            self._probes.append(subprocess.Popen([sys.executable, "-S", __file__, str(core), str(path)]))
        while not all(path.stat().st_size for path in self._paths.values()):
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._probes:
            each.kill()
            each.wait()

    @property
    def count(self) -> int:
        return len(self._paths)

    def mark(self) -> None:
        """What is kept begins now."""
        self._since = time.time()

    def kept(self) -> list[list[tuple[float, float]]]:
        """Of each core, when, in seconds since the mark, and how long its loop took: means of tenths of a second."""
        return [self._means(path.read_text().splitlines()[:-1]) for path in self._paths.values()]

    def _means(self, lines: list[str]) -> list[tuple[float, float]]:
        found: dict[int, list[float]] = {}
        for when, seconds in (map(float, line.split()) for line in lines):
            if when >= self._since:
                found.setdefault(int((when - self._since) * 10), []).append(seconds)
        return [(tenth / 10, sum(seconds) / len(seconds)) for tenth, seconds in sorted(found.items())]


if __name__ == "__main__":
    probe(int(sys.argv[1]), Path(sys.argv[2]))
