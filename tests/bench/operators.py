"""Measured operators beside published operating points, and what hosts add, fitted; how well that predicts unseen ones.

`python tests/bench/operators.py` (with the extra `silicon`) prints the table of docs/benchmarks/simulator.md and writes
profiles/data/latency/silicon.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from points import DATA, ROOT, SOURCE, Errors, Point, band, expected, left_out, points, residuals, show
from scipy.optimize import least_squares

from octavo.runtime.core.scheduler import Chunk
from octavo.simulator.latency.model import EXACT, Band, Line
from octavo.simulator.latency.operators import FRAMEWORKS
from octavo.simulator.latency.silicon import Host, Silicon

OUT = ROOT / "profiles" / "data" / "latency" / "silicon.json"
START = 5e-4, 5e-6, 4e-6
"""Where a host's seconds per step, sequence and exchanging layer start, and stay where no run says otherwise."""
FIRM = 0.2
"""How firmly: frameworks differ, but what is known of one says something of another."""


@dataclass(frozen=True)
class Counted:
    """Not seconds but steps, or sequences of steps (`rows`): what a host's seconds are multiplied with."""

    rows: bool
    label: str = ""
    band: Band = EXACT

    def decode(self, rows: int, context: int) -> Line:
        return Line(rows if self.rows else 1, 0.0)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        return rows + len(chunks) if self.rows else 1


def counts(p: Point) -> tuple[float, float, float]:
    """Steps, sequences and layers that exchange, for each token that a request writes."""
    steps = p.of(Counted(rows=False))
    return steps, p.of(Counted(rows=True)), steps * p.model.layers * (p.shards > 1)


@dataclass(frozen=True)
class Hosts:
    """What each framework adds."""

    of: dict[str, Host]

    def seconds(self, point: Point, bare: float) -> float:
        """Of a token, on the devices and the host."""
        return bare + sum(a * b for a, b in zip(astuple(self.of[point.framework]), counts(point), strict=True))


def bare_seconds(all_: Sequence[Point]) -> list[float]:
    """Time per output token without the host."""
    made: dict[tuple[object, ...], Silicon] = {}
    found = []
    for p in all_:
        blocks = p.model.block_scales
        key = p.hardware.name, p.framework, p.model.name, blocks, p.precision, p.kv_precision, p.shards
        if key not in made:
            made[key] = Silicon(p.hardware.name, p.framework, p.model, p.precision, p.kv_precision, p.shards)
        found.append(p.of(made[key]))
    return found


def fit(bare: dict[int, float], some: Sequence[Point]) -> Hosts:
    """Least squares of the relative error, robust to outliers; the exchange is the same in all frameworks."""
    tpot = np.array([point.tpot for point in some])
    without = np.array([bare[id(point)] for point in some])
    names = list(FRAMEWORKS)
    matrix = np.zeros((len(some), 2 * len(names) + 1))
    for row, point in zip(matrix, some, strict=True):
        place = names.index(point.framework)
        row[place], row[len(names) + place], row[-1] = counts(point)
    start = np.array([*[START[0]] * len(names), *[START[1]] * len(names), START[2]])

    def errors(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.concatenate([(without + matrix @ (start * np.exp(logs))) / tpot - 1, FIRM * logs])

    found = start * np.exp(least_squares(errors, np.zeros(len(start)), loss="soft_l1", f_scale=0.1).x)
    each = {n: Host(float(found[i]), float(found[len(names) + i]), float(found[-1])) for i, n in enumerate(names)}
    return Hosts(each)


def predict(bare: dict[int, float], hosts: Hosts, point: Point) -> float:
    return hosts.seconds(point, bare[id(point)])


def table(every: Sequence[Point]) -> tuple[dict[str, Errors], dict[str, Errors], Hosts]:
    """Errors of all points, and of those that were left out of the fit of the hosts."""
    bare = {id(point): seconds for point, seconds in zip(every, bare_seconds(every), strict=True)}
    train: Callable[[Sequence[Point]], Hosts] = partial(fit, bare)
    hosts = train(every)
    usual = [point for point in every if not point.cached]
    lines = {
        "operators alone": Errors.of([bare[id(point)] for point in every], every),
        "operators and hosts": Errors.of([predict(bare, hosts, point) for point in every], every),
        "the same without the cached 14": Errors.of([predict(bare, hosts, point) for point in usual], usual),
    }
    return lines, left_out(every, train, partial(predict, bare)), hosts


def main() -> None:
    if not DATA.exists():
        sys.exit(f"{DATA} is not here: published operating points of real servers")
    lines, unseen, hosts = table(points())
    lines |= {f"hosts not fitted to: {name}": e for name, e in unseen.items()}
    show(lines)
    data = {
        "name": "silicon",
        "description": "What hosts add to measured operators, per step, per sequence and per layer that is exchanged",
        "hosts": {
            name: {key: float(f"{value:.4g}") for key, value in asdict(host).items()} for name, host in hosts.of.items()
        },
        "error": expected(unseen),
        "band": band(e for name, e in unseen.items() if "without" not in name),
        "residuals": residuals(lines),
        "source": SOURCE,
        "date": "2026-04",
    }
    OUT.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
