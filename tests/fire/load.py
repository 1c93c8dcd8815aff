"""Load on one server: overhead, overload, recovery, idle connections. `python tests/fire/load.py BUNDLE [SECONDS]`.

Client and server share this machine, so that the figures are upper bounds.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import httpx
from serving import serving

CHAT = {"messages": [{"role": "user", "content": "turn 99282277:"}], "max_tokens": 9}
QUEUED = 64  # candidates: four queries


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


async def one(client: httpx.AsyncClient, seen: Seen, seed: int, model: str = "octavo") -> int:
    start = perf_counter()
    answer = await client.post("/v1/chat/completions", json=CHAT | {"seed": seed, "model": model})
    seen.add(answer.status_code, perf_counter() - start)
    return answer.status_code


async def in_turn(client: httpx.AsyncClient, count: int, model: str = "octavo") -> Seen:
    """One query after the other."""
    seen = Seen()
    for seed in range(count):
        await one(client, seen, seed, model)
    return seen


async def side_by_side(client: httpx.AsyncClient, clients: int, seconds: float) -> Seen:
    """Clients who ask again as soon as they are answered, and rest a little when they are turned away."""
    seen, end = Seen(), perf_counter() + seconds

    async def ask(number: int) -> None:
        while perf_counter() < end:
            if await one(client, seen, number) == 429:
                await asyncio.sleep(0.2)

    await asyncio.gather(*map(ask, range(clients)))
    return seen


async def check(url: str, seconds: float) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        await in_turn(client, 20)
        print(f"one at a time        {await in_turn(client, 200)}", flush=True)
        full = await side_by_side(client, QUEUED // 16, seconds)
        print(f"as many as fit       {full}", flush=True)
        over = await side_by_side(client, 10 * QUEUED // 16, seconds)
        print(f"ten times as many    {over}", flush=True)
        assert set(over.seconds) == {200, 429}, over
        assert over.quantile(200, 0.99) <= 2 * full.quantile(200, 0.99), "accepted queries became too slow"
        start = perf_counter()
        while await one(client, Seen(), 0) != 200:
            await asyncio.sleep(0.05)
        print(f"recovered after      {perf_counter() - start:.2f} s", flush=True)
        port = int(url.rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1000)]
        print(f"1,000 idle beside    {await in_turn(client, 200)}", flush=True)
        for _, writer in idle:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def main(bundle: Path, seconds: float) -> None:
    with serving(bundle, max_num_queued_reqs=QUEUED, read_timeout=120) as url:
        asyncio.run(check(url, seconds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60)
