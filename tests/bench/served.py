"""The published points of SGLang as a simulated server comes to them: clients that always have a request running.

`python tests/bench/served.py` (with the extra `silicon`) prints the table of docs/benchmarks/simulator.md. Nothing is
fitted here: step times are those of `latency: silicon:sglang`, and only the schedule and the lengths differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from points import CHUNK, Errors, Point, points
from unseen import by_kind, silicon, unseen

from octavo.runtime.core.policies import policy_named
from octavo.runtime.core.query import Ensemble, Query
from octavo.runtime.core.scheduler import Limits
from octavo.runtime.core.trace import InferenceRecord
from octavo.simulator.arrivals import Loop
from octavo.simulator.device import Device
from octavo.simulator.lane import Lane
from octavo.simulator.latency import LatencyModel
from octavo.simulator.latency.choose import host_of
from octavo.simulator.latency.silicon import Silicon
from octavo.simulator.outcomes import Drawn, unknown
from octavo.simulator.station import Berth, Station
from octavo.simulator.world import World

BLOCK, REQUESTS = 16, 20
"""Tokens of a KV block, and requests that each client makes, one after the other; the first does not count."""
SPREAD = 0.3
"""How much shorter or longer lengths are, at most, where clients are not in step: nothing says why they were not."""
NAME = "server"


def served(p: Point, latency: LatencyModel, *, prefill_first: bool, spread: float = 0.0) -> float:
    """Mean seconds per output token after the first; `spread`: lengths are evenly drawn from around the nominal."""
    count = p.clients * REQUESTS
    random = np.random.default_rng(0)
    factors = 1 + spread * random.uniform(-1, 1, (2, count))
    prompts, answers = np.maximum(1, np.rint(factors * [[p.prompt], [p.answer]])).astype(int)
    truth = Drawn(answers[:, None], unknown(1, count), {(NAME, 0): 0})
    lane = Lane(NAME, (NAME,), limits(p, prefill_first), latency, truth)
    station = Station(NAME, "", [Berth(Device(NAME, [lane]), lane)])
    queries = [Query(i, int(tokens), 2 * p.answer) for i, tokens in enumerate(prompts)]
    kept: list[InferenceRecord] = []
    source, policy = Loop(queries, p.clients, np.zeros(count)), policy_named("single")
    World(source, Ensemble((NAME,), 1), policy, {NAME: station}, truth, keep=kept.append).run()
    settled = [record for record in kept if record.query >= p.clients and record.new_tokens > 1]
    return float(np.mean([seconds_per_token(record) for record in settled]))


def seconds_per_token(record: InferenceRecord) -> float:
    assert record.first_token is not None
    assert record.ended is not None
    return (record.ended - record.first_token) / (record.new_tokens - 1)


def limits(p: Point, prefill_first: bool) -> Limits:
    room = p.hardware.memory * 0.9 * p.shards - p.model.weight_bytes(p.precision)
    blocks = int(room / p.model.kv_bytes_per_token(p.kv_precision) / BLOCK)
    return Limits(blocks, BLOCK, max(p.clients, 1), CHUNK, prefix_caching=False, prefill_first=prefill_first)


MADE: dict[tuple[object, ...], Silicon] = {}


def silicon_of(p: Point) -> Silicon:
    host, band = host_of(p.framework)
    shape = p.hardware.name, p.framework, p.model, p.precision, p.kv_precision, p.shards
    key = *shape[:2], p.model.name, p.model.block_scales, *shape[3:]
    if key not in MADE:
        MADE[key] = Silicon(*shape, host=host, band=band)
    return MADE[key]


def main() -> None:
    print("| SGLang | points | closed form | simulated, mixed | simulated, prompts first |\n|---|---|---|---|---|")
    kinds = {("in the fit", *kind): some for kind, some in by_kind(points()).items()}
    kinds |= {("unseen", *kind): some for kind, some in by_kind(unseen()).items()}
    for kind, some in kinds.items():
        if kind[3] == "sglang":
            cells = silicon(some), each(some, prefill_first=False), each(some, prefill_first=True)
            print(f"| {', '.join(kind)} | {len(some)} | {' | '.join(cell(seconds, some) for seconds in cells)} |")


def each(some: Sequence[Point], *, prefill_first: bool) -> list[float]:
    ways = [0.0 if point.in_step else SPREAD for point in some]
    return [
        served(p, silicon_of(p), prefill_first=prefill_first, spread=way) for p, way in zip(some, ways, strict=True)
    ]


def cell(seconds: Sequence[float], some: Sequence[Point]) -> str:
    found = Errors.of(seconds, some)
    return f"{found.mape:.1%} ({found.bias:+.1%})"


if __name__ == "__main__":
    main()
