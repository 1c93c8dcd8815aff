"""What the gateway adds to the engine: `python tests/fire/gateway.py BUNDLE [--locust PROGRAM] [--seconds 20]`.

The log says of each request how long the server had it and how long the engine. First one client asks in turn, its own
clock running too; then locust's users ask side by side. Beside it, what the event loop's thread computed per query, and
how long it waited for a core: that is the machine's noise. Exit code 6: the aim was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from load import Client, Seen
from serving import MISSED, pinned, pinning, serving

GOAL = 5e-3  # seconds, of the 99th percentile
IN_TURN, WARM = 400, 20


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def told(what: str, seconds: Sequence[float]) -> float:
    """Print and return the 99th percentile."""
    last = quantile(seconds, 0.99)
    print(f"{what}: median {quantile(seconds, 0.5) * 1e3:.2f} ms, p99 {last * 1e3:.2f} ms, {len(seconds)} queries")
    return last


def answered(heard: Sequence[str]) -> dict[int, tuple[float, float]]:
    """Seconds in the server and in the engine, by the query's seed."""
    rows = [json.loads(line) for line in heard if '"engine_seconds"' in line]
    return {row["seed"]: (row["seconds"], row["engine_seconds"]) for row in rows}


def spent(process: int) -> tuple[float, float]:
    """Seconds that the process's first thread, the event loop's, has computed, and has waited for a core."""
    path = Path(f"/proc/{process}/task/{process}/schedstat")
    computed, waited, *_ = path.read_text().split() if path.exists() else ("nan", "nan")
    return float(computed) / 1e9, float(waited) / 1e9


def told_loop(before: tuple[float, float], after: tuple[float, float], queries: int) -> None:
    computed, waited = ((b - a) / queries * 1e3 for a, b in zip(before, after, strict=True))
    print(f"  the event loop's thread, per query: {computed:.2f} ms computed, {waited:.2f} ms waited for a core")


async def in_turn(port: int) -> dict[int, float]:
    """What a client's clock says, by seed."""
    took = {}
    async with Client(port) as client:
        for seed in range(WARM + IN_TURN):
            seen = Seen()
            await client.ask(seen, seed)
            if seed >= WARM:
                took[seed] = seen.seconds[200][0]
    return took


def with_locust(program: str, url: str, users: int, seconds: int) -> str:
    """Its own summary. Raises SystemExit where a query failed."""
    file = str(Path(__file__).with_name("locustfile.py"))
    command = [program, "-f", file, "--headless", "--host", url, "-u", str(users), "-r", str(users)]
    done = subprocess.run([*command, "-t", f"{seconds}s", "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    [row] = json.loads(done.stdout)
    return f"locust, {users} users: {row['num_requests']} queries, {row['num_failures']} failures"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--locust", metavar="PROGRAM")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=20)
    pinning(parser)
    given = parser.parse_args(arguments)
    core, heard, started = pinned(given), list[str](), list[int]()
    with serving(given.bundle, heard, started, core, read_timeout=120) as url:
        before = spent(started[0])
        took = asyncio.run(in_turn(int(url.rpartition(":")[2])))
        told_loop(before, spent(started[0]), WARM + IN_TURN)
    rows = answered(heard)
    told("in turn, the engine", [rows[seed][1] for seed in took])
    told("in turn, the client's time less the engine's", [took[seed] - rows[seed][1] for seed in took])
    last = told("in turn, the server's time less the engine's", [rows[seed][0] - rows[seed][1] for seed in took])
    if given.locust:
        heard, started = [], []
        with serving(given.bundle, heard, started, core, read_timeout=120) as url:
            before = spent(started[0])
            print(with_locust(given.locust, url, given.users, given.seconds))
            after = spent(started[0])
        rows = answered(heard)
        told_loop(before, after, len(rows))
        told("side by side, the engine", [engine for _, engine in rows.values()])
        last = max(last, told("side by side, the server's time less the engine's", [a - b for a, b in rows.values()]))
    print(f"{'held' if last <= GOAL else 'MISSED'}: at most {GOAL * 1e3:g} ms")
    sys.exit(MISSED if last > GOAL else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
