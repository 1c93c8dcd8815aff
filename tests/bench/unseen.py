"""Points that no fit has seen: of the operator package's own sample, those that ../shared's sample leaves out.

`python tests/bench/unseen.py` (with the extra `silicon`) prints the table of docs/benchmarks/simulator.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from math import ceil
from pathlib import Path

from operators import Hosts, bare_seconds
from points import DATA, HARDWARE, MODELS, Errors, Point, points

from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.latency import Physics
from octavo.simulator.latency.choose import fitted, host_of
from octavo.simulator.latency.operators import FRAMEWORKS
from octavo.simulator.latency.physics import BEND
from octavo.simulator.latency.silicon import Silicon

CHUNK = 8192
Kind = tuple[str, ...]


def unseen() -> list[Point]:
    """Also of Qwen3-32B, and on GB200."""
    with DATA.open(encoding="utf-8", newline="") as lines:
        seen = {row["id"] for row in csv.DictReader(lines)}
    return points(whole(), {**MODELS, "Qwen3-32B": "qwen3-32b"}, {**HARDWARE, "gb200": "gb200"}, seen)


def whole() -> Path:
    found = find_spec("aiconfigurator_core")
    if found is None or found.origin is None:
        sys.exit("the extra silicon is not installed: pip install 'octavo[silicon]'")
    return Path(found.origin).parent / "systems" / "silicon_sample.csv"


def by_kind(some: Sequence[Point]) -> dict[Kind, list[Point]]:
    found: dict[Kind, list[Point]] = {}
    for p in some:
        front = ("several servers behind a front",) if p.servers > 1 else ()
        found.setdefault((p.model.name, p.hardware.name, p.framework, p.precision, *front), []).append(p)
    return dict(sorted(found.items()))


def silicon(some: Sequence[Point]) -> list[float]:
    """By the operators and hosts that ship."""
    hosts = Hosts({name: host_of(name)[0] for name in FRAMEWORKS})
    return [hosts.seconds(point, bare) for point, bare in zip(some, bare_seconds(some), strict=True)]


def fit(point: Point) -> float:
    """By the coefficients that ship."""
    coefficients = fitted(f"servers:{point.framework}")[0]
    shape = point.hardware, point.model, point.precision, point.kv_precision, point.shards
    return point.of(Physics("", coefficients, 0.0, BEND, *shape))


def in_step(p: Point) -> float:
    """Of a server that prefills before it decodes (SGLang) and clients that begin together with answers of one length.

    They end together too, so that all prompts are prefilled in a row, and a request waits for those after its own.
    """
    host = host_of(p.framework)[0]
    latency = Silicon(p.hardware.name, p.framework, p.model, p.precision, p.kv_precision, p.shards, host=host)
    chunks = ceil(p.clients * p.prompt / CHUNK)
    each = min(p.prompt, CHUNK)
    prompts = max(1, round(min(CHUNK, p.clients * p.prompt) / each))
    one = latency.mixed(0, 0, [Chunk(Prompt(0, each, ()), 0, each)] * prompts)
    decoding = latency.decode(p.clients, p.clients * (p.prompt + p.answer // 2)).seconds
    return decoding + (chunks - 1) / 2 * one / p.answer


def main() -> None:
    print("| not in any fit | points | `silicon` | bias | `fit:servers` | bias |\n|---|---|---|---|---|---|")
    for kind, some in by_kind(unseen()).items():
        a, b = Errors.of(silicon(some), some), Errors.of([fit(point) for point in some], some)
        print(f"| {', '.join(kind)} | {len(some)} | {a.mape:.1%} | {a.bias:+.1%} | {b.mape:.1%} | {b.bias:+.1%} |")
        if kind[0] == "qwen3-32b" and kind[2] == "sglang":
            c = Errors.of([in_step(point) for point in some], some)
            print(f"| the same, clients in step | {len(some)} | {c.mape:.1%} | {c.bias:+.1%} | | |")


if __name__ == "__main__":
    main()
