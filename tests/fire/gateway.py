"""What the gateway adds to the engine: `python tests/fire/gateway.py BUNDLE [--locust PROGRAM] [--seconds 20]`.

The log says of each request how long the server had it and how long the engine. First one client asks in turn, its own
clock running too; then locust's users ask side by side.
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
from serving import serving

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
    given = parser.parse_args(arguments)
    heard: list[str] = []
    with serving(given.bundle, heard, read_timeout=120) as url:
        took = asyncio.run(in_turn(int(url.rpartition(":")[2])))
    rows = answered(heard)
    told("in turn, the engine", [rows[seed][1] for seed in took])
    told("in turn, the client's time less the engine's", [took[seed] - rows[seed][1] for seed in took])
    last = told("in turn, the server's time less the engine's", [rows[seed][0] - rows[seed][1] for seed in took])
    if given.locust:
        heard = []
        with serving(given.bundle, heard, read_timeout=120) as url:
            print(with_locust(given.locust, url, given.users, given.seconds))
        rows = answered(heard)
        told("side by side, the engine", [engine for _, engine in rows.values()])
        last = max(last, told("side by side, the server's time less the engine's", [a - b for a, b in rows.values()]))
    print(f"{'held' if last <= GOAL else 'MISSED'}: at most {GOAL * 1e3:g} ms")
    sys.exit(last > GOAL)


if __name__ == "__main__":
    main(sys.argv[1:])
