"""Points that no fit has seen: of the operator package's own sample, those that ../shared's sample leaves out.

`python tests/bench/unseen.py` (with the extra `silicon`) prints the table of docs/benchmarks/simulator.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import operators
import silicon as physics
from operators import Hosts, bare_seconds
from points import DATA, HARDWARE, MODELS, Errors, Point, point, points

from octavo.profiles import load_hardware, load_model
from octavo.profiles.quantity import Precision
from octavo.simulator.latency import Physics
from octavo.simulator.latency.choose import fitted, host_of
from octavo.simulator.latency.model import EXACT
from octavo.simulator.latency.operators import FRAMEWORKS
from octavo.simulator.latency.physics import BEND

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
    return point.of(Physics("", coefficients, EXACT, BEND, *shape))


def sparse() -> list[Point]:
    """gpt-oss-120b, every expert on all devices: InferenceX keeps keys and values in fp8 on B200 alone."""
    model, hardware = load_model("gpt-oss-120b"), {name: load_hardware(ours) for name, ours in HARDWARE.items()}
    found = []
    with whole().open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            alone = row["mode"] == "agg" and row["moe_ep_size"] == row["attention_dp_size"] == "1"
            if alone and "gpt-oss-120b" in row["model_path"]:
                one = point(row, model, hardware[row["system"]])
                kv: Precision = "fp8" if row["system"] == "b200_sxm" else "bf16"
                found.append(replace(one, precision="bf16", kv_precision=kv))
    return found


def swapped(those: Sequence[Point]) -> tuple[list[Point], Errors, Errors]:
    """SGLang's points of the fits, and these, by what fits to those in their place say."""
    every = points()
    some = [p for p in every if p.framework == "sglang"]
    some += [p for p in those if p.framework == "sglang" and p.model.name == some[0].model.name]
    others = [p for p in every if p.framework != "sglang"]
    others += [p for p in those if p.framework == "sglang" and p.model.name != some[0].model.name]
    bare = {id(p): seconds for p, seconds in zip([*others, *some], bare_seconds([*others, *some]), strict=True)}
    hosts, coefficients = operators.fit(bare, others), physics.fit(others)
    a = Errors.of([hosts.seconds(p, bare[id(p)]) for p in some], some)
    return some, a, Errors.of([physics.predict(coefficients, p) for p in some], some)


def main() -> None:
    print("| not in any fit | points | `silicon` | bias | `fit:servers` | bias |\n|---|---|---|---|---|---|")
    for kind, some in by_kind(unseen()).items():
        show(", ".join(kind), some, Errors.of(silicon(some), some), Errors.of([fit(point) for point in some], some))
    show("llama-3.1-8b, h200, sglang, fp8, SGLang fitted to qwen3-32b instead", *swapped(unseen()))
    print("\n| sparse, in no fit | points | `fit:servers` | bias | `roofline` | bias |\n|---|---|---|---|---|---|")
    for kind, some in by_kind(sparse()).items():
        by_roofline = Errors.of([physics.bare(p) for p in some], some)
        show(", ".join(kind), some, Errors.of([fit(p) for p in some], some), by_roofline)


def show(name: str, some: Sequence[Point], a: Errors, b: Errors) -> None:
    print(f"| {name} | {len(some)} | {a.mape:.1%} | {a.bias:+.1%} | {b.mape:.1%} | {b.bias:+.1%} |")


if __name__ == "__main__":
    main()
