"""A long load, and the end of a server: `python tests/fire/soak.py BUNDLE [--minutes 60]`.

Capacity is measured first; queries then come at 80 % of it, at random times, whether or not earlier ones are answered.
Promised: no errors, resident memory that does not grow by more than 2 % after a tenth of the time, and on SIGTERM an
answer to every query that was taken in.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from load import Client, Seen, side_by_side
from serving import serving

SHARE, GROWTH, DRAINED = 0.8, 0.02, 100
LONG = {"max_tokens": 40, "ignore_eos": True}


def resident(process: int) -> int:
    """Bytes of memory."""
    fields = Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()
    return int(fields[0]) * 1024


async def soak(port: int, rate: float, seconds: float, seen: Seen, sizes: list[int], process: int) -> None:
    """Ask at `rate` queries a second; `sizes` gets the resident memory ten times, once a tenth of the time."""
    rng, free, open_ = random.Random(0), [], set()
    start = time.perf_counter()
    due, asked = start, 0

    async def ask(seed: int) -> None:
        client = free.pop() if free else await Client(port).__aenter__()
        await client.ask(seen, seed)
        free.append(client)

    while (now := time.perf_counter()) < start + seconds:
        if (now - start) / seconds * 10 > len(sizes) + 1:
            sizes.append(resident(process))
        if now < due:
            await asyncio.sleep(due - now)
            continue
        due += rng.expovariate(rate)
        asked += 1
        task = asyncio.create_task(ask(asked))
        open_.add(task)
        task.add_done_callback(open_.discard)
    await asyncio.gather(*open_)
    sizes.append(resident(process))
    for client in free:
        await client.__aexit__()


def soaked(bundle: Path, minutes: float) -> bool:
    started: list[int] = []
    seen, sizes = Seen(), list[int]()
    with serving(bundle, started=started, read_timeout=120, max_num_queued_reqs=4096) as url:
        port = int(url.rpartition(":")[2])
        asyncio.run(side_by_side(port, 4, 3))
        full = asyncio.run(side_by_side(port, 4, 10))
        rate = SHARE * len(full.seconds[200]) / 10
        print(f"capacity {rate / SHARE:.1f} queries/s ({full}); {rate:.1f} a second for {minutes:g} min", flush=True)
        asyncio.run(soak(port, rate, 60 * minutes, seen, sizes, started[0]))
    growth = sizes[-1] / sizes[0] - 1
    shown = ", ".join(f"{size / 1e6:.1f}" for size in sizes)
    print(f"{seen}\nresident MB, ten times: {shown}")
    return all(
        [
            said("statuses", set(seen.seconds) == {200}, str(sorted(seen.seconds))),
            said("growth", growth <= GROWTH, f"{growth:.2%}, at most {GROWTH:.0%}"),
        ]
    )


def drained(bundle: Path) -> bool:
    """SIGTERM while so many queries are open: every one is answered."""
    seen, sent = Seen(), threading.Event()

    async def ask(port: int) -> None:
        clients = [await Client(port).__aenter__() for _ in range(DRAINED)]
        asking = [asyncio.create_task(client.ask(seen, seed, **LONG)) for seed, client in enumerate(clients)]
        await asyncio.sleep(0.7)
        sent.set()
        await asyncio.gather(*asking, return_exceptions=True)

    with serving(bundle, max_num_queued_reqs=4096, read_timeout=120) as url:
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    given = parser.parse_args(arguments)
    held = [drained(given.bundle), soaked(given.bundle, given.minutes)]
    sys.exit(not all(held))


if __name__ == "__main__":
    main(sys.argv[1:])
