"""Fits the step-time physics to published closed-loop operating points, and says how well it predicts unseen ones.

`python tests/bench/silicon.py` prints the table of docs/benchmarks/simulator.md and writes the coefficients.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from points import DATA, ROOT, SOURCE, Errors, Point, band, expected, left_out, points, residuals, show

from octavo.simulator.latency import Coefficients, Physics, roofline
from octavo.simulator.latency.fit import Fitted, fit_coefficients
from octavo.simulator.latency.model import EXACT
from octavo.simulator.latency.physics import BEND

OUT = ROOT / "profiles" / "data" / "latency" / "servers.json"


def under(point: Point, c: Coefficients) -> float:
    """Seconds per output token by the physics with these coefficients."""
    shape = point.hardware, point.model, point.precision, point.kv_precision, point.shards
    return point.of(Physics("", c, EXACT, BEND, *shape))


def fit(some: Sequence[Point]) -> Fitted:
    return fit_coefficients(
        [partial(under, point) for point in some], [p.tpot for p in some], [p.framework for p in some]
    )


def predict(fitted: Fitted, point: Point) -> float:
    return under(point, fitted.of(point.framework))


def bare(point: Point) -> float:
    return point.of(roofline(point.hardware, point.model, point.precision, point.kv_precision, point.shards))


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def main() -> None:
    if not DATA.exists():
        sys.exit(f"{DATA} is not here: published operating points of real servers")
    every = points()
    found = fit(every)
    lines = {
        "roofline, no fit": Errors.of([bare(point) for point in every], every),
        "fit": Errors.of([predict(found, point) for point in every], every),
    }
    unseen = left_out(every, fit, predict)
    lines |= {f"not in the fit: {name}": e for name, e in unseen.items()}
    show(lines)
    print("roofline's band:", band([lines["roofline, no fit"]]))
    data = {
        "name": "servers",
        "description": "Step times of vLLM, SGLang and TensorRT-LLM serving dense models on data-centre GPUs",
        "coefficients": rounded(asdict(found.of("vllm"))),
        "frameworks": {name: rounded(dict(host)) for name, host in found.hosts.items()},
        "error": expected(unseen),
        "band": band(e for name, e in unseen.items() if "without" not in name),
        "residuals": residuals(lines),
        "source": SOURCE,
        "date": "2026-04",
    }
    OUT.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
