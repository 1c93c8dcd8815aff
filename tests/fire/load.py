"""Load on one server: overload, recovery, idle connections. `python tests/fire/load.py BUNDLE [SECONDS] [--core 0]`.

Client and server share this machine, so that the figures are upper bounds. Exit code 6: a promise was missed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from serving import MISSED, pinned, pinning, serving

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
)
CHAT = {"model": "octavo", "messages": [{"role": "user", "content": "turn 99282277:"}], "max_tokens": 9}
QUEUED = 64  # candidates: four queries
REFUSED = 0.05  # seconds within which one is turned away


@dataclass
class Seen:
    """Seconds of each answer, by status."""

    seconds: dict[int, list[float]] = field(default_factory=dict)

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    def quantile(self, status: int, share: float) -> float:
        found = sorted(self.seconds.get(status, [float("nan")]))
        return found[min(len(found) - 1, int(share * len(found)))]

    def __str__(self) -> str:
        rows = (
            f"{len(found)} x {status}: median {self.quantile(status, 0.5) * 1e3:.1f} ms, "
            f"p99 {self.quantile(status, 0.99) * 1e3:.1f} ms"
            for status, found in sorted(self.seconds.items())
        )
        return "; ".join(rows)


class Client:
    """One connection, with as little work of its own as possible."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    @property
    def open(self) -> bool:
        """Unless the server has closed it, which it may do with one that was idle for long."""
        return not self._reader.at_eof()

    async def ask(self, seen: Seen, seed: int, **more: object) -> int:
        """The status of one query; `more` are further fields of its body."""
        body = json.dumps(CHAT | {"seed": seed} | more).encode()
        start = perf_counter()
        self._writer.write(HEAD % len(body) + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        await self._reader.readexactly(int(length))
        status = int(head.split(b" ", 2)[1])
        seen.add(status, perf_counter() - start)
        return status


async def in_turn(port: int, count: int) -> Seen:
    """One query after the other."""
    seen = Seen()
    async with Client(port) as client:
        for seed in range(count):
            await client.ask(seen, seed)
    return seen


async def side_by_side(port: int, clients: int, seconds: float) -> Seen:
    """Clients who ask again as soon as they are answered, and rest a little when they are turned away."""
    seen, end = Seen(), perf_counter() + seconds

    async def ask(seed: int) -> None:
        async with Client(port) as client:
            while perf_counter() < end:
                if await client.ask(seen, seed) == 429:
                    await asyncio.sleep(0.2)

    await asyncio.gather(*map(ask, range(clients)))
    return seen


async def recovery(port: int) -> float:
    """Seconds till a query is accepted again."""
    start = perf_counter()
    async with Client(port) as client:
        while await client.ask(Seen(), 0) != 200:
            await asyncio.sleep(0.02)
    return perf_counter() - start


def judge(what: str, value: float, most: float) -> bool:
    print(f"  {'held  ' if value <= most else 'MISSED'} {what}: {value:.3f} s, at most {most:.3f} s", flush=True)
    return value <= most


async def check(port: int, seconds: float) -> bool:
    """Whether every promise held."""
    await in_turn(port, 20)
    print(f"one at a time: {await in_turn(port, 200)}", flush=True)
    full = await side_by_side(port, QUEUED // 16, seconds)
    print(f"as many as fit: {full}", flush=True)
    over = await side_by_side(port, 10 * QUEUED // 16, seconds)
    print(f"ten times as many: {over}", flush=True)
    late = sum(seconds > REFUSED for seconds in over.seconds.get(429, []))
    print(f"refused later than {REFUSED * 1e3:g} ms: {late} of {len(over.seconds.get(429, []))}", flush=True)
    held = [
        set(over.seconds) == {200, 429},
        judge("p99 of what was accepted", over.quantile(200, 0.99), 2 * full.quantile(200, 0.99)),
        judge("median of what was refused", over.quantile(429, 0.5), REFUSED),
        judge("recovery", await recovery(port), 5),
    ]
    idle = [Client(port) for _ in range(1000)]
    for client in idle:
        await client.__aenter__()
    print(f"beside 1,000 idle connections: {await in_turn(port, 200)}", flush=True)
    for client in idle:
        await client.__aexit__()
    return all(held)


def main(arguments: Sequence[str]) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("seconds", type=float, nargs="?", default=60)
    pinning(parser)
    given = parser.parse_args(arguments)
    with serving(given.bundle, core=pinned(given), max_num_queued_reqs=QUEUED, read_timeout=120) as url:
        held = asyncio.run(check(int(url.rpartition(":")[2]), given.seconds))
    sys.exit(0 if held else MISSED)


if __name__ == "__main__":
    main(sys.argv[1:])
