"""A long load, and the end of a server: `python tests/fire/soak.py BUNDLE [--minutes 60] [--core 0]`.

The server is warmed up first, with a burst of as many open queries as there will ever be and then at its pace; the
capacity is measured under the same pinning. Queries then come at 80 % of it, at random times, whether or not earlier
ones are answered; only while OPEN are open the next is held back, and counted. Promised: no answer but 200, resident
memory that does not grow by more than 2 % after the warm-up, and on SIGTERM an answer to every query that was taken
in. A line a minute tells how it goes. Exit code 6: a promise was missed; 130: interrupted, the table is of what was.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from load import Client, Seen, side_by_side
from serving import MISSED, pinned, pinning, serving

SHARE, GROWTH, DRAINED, OPEN = 0.8, 0.02, 100, 64
SAMPLED = 5.0  # seconds between two looks at the memory
LONG = {"max_tokens": 40, "ignore_eos": True}
ROOMY = {"read_timeout": 120, "max_num_queued_reqs": 4096, "deadline": 300}


def resident(process: int) -> int:
    """Bytes of memory."""
    fields = Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()
    return int(fields[0]) * 1024


@dataclass
class Load:
    """Queries at a pace, and what became of them. Status 0 stands for a connection that broke."""

    port: int
    process: int
    rate: float
    seen: Seen = field(default_factory=Seen)
    sizes: list[int] = field(default_factory=list)
    asked: int = 0
    held_back: int = 0
    _free: list[Client] = field(default_factory=list)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, seconds: float, told: bool = False) -> None:
        """Ask for so long, then wait for the last answers."""
        rng, start = random.Random(0), time.perf_counter()
        watching = asyncio.create_task(self._watch(start, told))
        due = start
        while (now := time.perf_counter()) < start + seconds:
            if now < due:
                await asyncio.sleep(due - now)
            elif len(self._open) >= OPEN:
                self.held_back += 1
                await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            else:
                due = max(due, now - 1) + rng.expovariate(self.rate)
                self.asked += 1
                task = asyncio.create_task(self._ask(self.asked))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
        await asyncio.gather(*self._open)
        watching.cancel()
        for client in self._free:
            await client.__aexit__()

    async def _ask(self, seed: int) -> None:
        client = await self._client()
        try:
            await client.ask(self.seen, seed)
        except (OSError, EOFError):
            self.seen.add(0, 0.0)
        else:
            self._free.append(client)

    async def _client(self) -> Client:
        """A connection that is free and still open, as every HTTP client looks for one; else a new one."""
        while self._free:
            if (client := self._free.pop()).open:
                return client
            await client.__aexit__()
        return await Client(self.port).__aenter__()

    async def _watch(self, start: float, told: bool) -> None:
        minutes, before = 0, 0
        while True:
            await asyncio.sleep(SAMPLED)
            self.sizes.append(resident(self.process))
            passed = (time.perf_counter() - start) / 60
            if told and passed >= minutes + 1:
                minutes = int(passed)
                latest = sorted(self.seen.seconds.get(200, [])[before:]) or [float("nan")]
                before = len(self.seen.seconds.get(200, []))
                others = sum(len(found) for status, found in self.seen.seconds.items() if status != 200)
                print(
                    f"  minute {minutes}: {before} answered, {others} not, {len(self._open)} open, "
                    f"{self.held_back} held back, median {median(latest) * 1e3:.0f} ms, "
                    f"p99 {latest[int(0.99 * (len(latest) - 1))] * 1e3:.0f} ms, {self.sizes[-1] / 1e6:.1f} MB",
                    flush=True,
                )


def soaked(bundle: Path, minutes: float, warm: float, core: int | None) -> bool:
    started: list[int] = []
    with serving(bundle, started=started, core=core, **ROOMY) as url:
        port = int(url.rpartition(":")[2])
        asyncio.run(side_by_side(port, OPEN, 10))
        capacity = min(len(asyncio.run(side_by_side(port, 4, 10)).seconds.get(200, [])) / 10 for _ in range(3))
        load = Load(port, started[0], SHARE * max(capacity, 0.1))
        print(f"capacity {capacity:.1f} queries/s, the least of three times 10 s; {load.rate:.1f} a second", flush=True)
        asyncio.run(Load(port, started[0], load.rate).run(warm))
        load.sizes.append(resident(started[0]))
        print(f"warm after {warm:.0f} s more: {load.sizes[0] / 1e6:.1f} MB; now {minutes:g} min", flush=True)
        interrupted = False
        try:
            asyncio.run(load.run(60 * minutes, told=True))
        except KeyboardInterrupt:
            interrupted = True
    held = judged(load)
    if interrupted:
        sys.exit(130)
    return held


def judged(load: Load) -> bool:
    """The table, and whether all of it held; memory is the median of the first and of the last tenth of the looks."""
    tenth = max(1, len(load.sizes) // 10)
    first, last = median(load.sizes[:tenth]), median(load.sizes[-tenth:])
    shown = ", ".join(f"{median(load.sizes[at : at + tenth]) / 1e6:.1f}" for at in range(0, len(load.sizes), tenth))
    print(f"{load.seen}; {load.asked} asked, {load.held_back} held back\nresident MB, tenth by tenth: {shown}")
    return all(
        [
            said("statuses", set(load.seen.seconds) == {200}, str(sorted(load.seen.seconds))),
            said("growth", last / first - 1 <= GROWTH, f"{last / first - 1:.2%}, at most {GROWTH:.0%}"),
        ]
    )


async def taken_in(port: int) -> float:
    """Queries that are open, as the server says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    [line] = [line for line in text.splitlines() if line.startswith("octavo_queued_queries")]
    return float(line.rpartition(" ")[2])


def drained(bundle: Path, core: int | None) -> bool:
    """SIGTERM while so many queries are open: every one is answered."""
    seen, sent = Seen(), threading.Event()

    async def ask(port: int) -> None:
        clients = [await Client(port).__aenter__() for _ in range(DRAINED)]
        asking = [asyncio.create_task(client.ask(seen, seed, **LONG)) for seed, client in enumerate(clients)]
        while not asking[0].done() and await taken_in(port) < DRAINED:
            await asyncio.sleep(0.05)
        sent.set()
        await asyncio.gather(*asking, return_exceptions=True)

    with serving(bundle, core=core, drain=120, **ROOMY) as url:
        thread = threading.Thread(target=lambda: asyncio.run(ask(int(url.rpartition(":")[2]))))
        thread.start()
        sent.wait()
        before = sum(map(len, seen.seconds.values()))
    thread.join()
    answered = len(seen.seconds.get(200, []))
    print(f"{seen}")
    return said("drain", answered == DRAINED, f"{answered} of {DRAINED} answered, {answered - before} after SIGTERM")


def said(what: str, held: bool, found: str) -> bool:
    print(f"  {'held  ' if held else 'MISSED'} {what}: {found}", flush=True)
    return held


def main(arguments: Sequence[str]) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument(
        "--warm", type=float, help="seconds at the pace before memory is looked at (a tenth, at most 300)"
    )
    pinning(parser)
    given = parser.parse_args(arguments)
    core = pinned(given)
    warm = min(300.0, 6 * given.minutes) if given.warm is None else given.warm
    with suppress(KeyboardInterrupt):
        held = [drained(given.bundle, core), soaked(given.bundle, given.minutes, warm, core)]
        sys.exit(0 if all(held) else MISSED)
    sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
