"""What steps take in a served load beside what they take on the bench, and what happens outside of steps.

Under load the threads of the devices, of the arrivals and of the answers share the processor's caches and the
interpreter's lock, so a step takes longer than the same step timed alone. A short load, other than the one that is
recorded, says by how much: seconds from one step to the next are a line in the seconds of the bench.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import TypeAlias

import numpy as np
from scipy.optimize import nnls

from octavo.profiles.latency import Pair
from octavo.runtime.calibration import Kind, Logged, Seen, Sort
from octavo.runtime.pace import MOMENT, Floats, course, moment

Predict: TypeAlias = Callable[[int, int, int, int], float]
Half: TypeAlias = Callable[[int, int, int, int], tuple[float, float]]
Halves: TypeAlias = tuple[Half, Half]  # seconds that a step computes and hosts: alone, and beside others
UNQUEUED = 25  # per cent of the queries that arrive while the first device they ask is free, more or less
DISTURBED = 0.003  # share of steps, the slowest of their kind
PAIRS = 50  # steps that stand for all of a kind
FEWEST = 20  # decodes of the model that took the step before, from which they are told apart


@dataclass(frozen=True, slots=True)
class Served:
    """A step in a served load takes `constant` seconds more than `factor` times what it takes on the bench."""

    constant: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Overheads:
    """Of steps, by whether a judge takes them and whether they prefill; seconds before the first and after the last."""

    steps: Mapping[Kind, Served] = field(default_factory=dict)
    per_inference: float = 0.0
    per_query: float = 0.0
    shares: Mapping[Sort, Share] = field(default_factory=dict)
    opening: tuple[float, float] = (0.0, 0.0)
    handover: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """A served step computes so many times as long as on the bench, and holds the interpreter so many times as long.

    Each of its results takes so many seconds more there. After a rest both parts take some seconds more. `again` times
    as long computes a step of the model that took the one before.
    """

    computing: float = 1.0
    hosting: float = 1.0
    per_result: float = 0.0
    rest: tuple[float, float] = (0.0, 0.0)
    again: float = 1.0


def overheads(seen: Seen, bench: Mapping[bool, Predict], split: Mapping[bool, Halves]) -> Overheads:
    """What all served loads say together.

    `bench` gives the seconds of a step on the bench, by whether a judge takes it; `split` its parts, where lanes share
    a process.
    """
    pairs: dict[Kind, list[tuple[float, float]]] = defaultdict(list)
    for turn in seen.turns:
        pairs[turn.kind].append((bench[turn.judge](*turn.sizes), turn.seconds))
    unqueued = float(np.percentile(seen.waits, UNQUEUED)) if seen.waits else 0.0
    steps = {kind: _served(found) for kind, found in pairs.items()}
    opening = _opening(seen.openings)
    after = max(0.0, median(seen.endings)) if seen.endings else 0.0
    waking = median(seen.handovers) if seen.handovers else 0.0
    return Overheads(steps, unqueued, after, shares([*seen.turns, *seen.lone], split), opening, waking)


def _opening(openings: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Seconds of opening a query, and those for each inference that it begins with."""
    by_size: dict[int, list[float]] = defaultdict(list)
    for size, seconds in openings:
        by_size[size].append(seconds)
    if len(by_size) < 2:
        return mean(seconds for _, seconds in openings) if openings else 0.0, 0.0
    (few, less), *_, (many, more) = sorted((size, mean(seconds)) for size, seconds in by_size.items())
    each = min(max(0.0, (more - less) / (many - few)), less / max(few, 1))
    return less - few * each, each


def _served(pairs: Sequence[tuple[float, float]]) -> Served:
    """Least squares of (seconds on the bench, seconds in the load), with neither coefficient negative.

    The most delayed steps are left out: what another program on the machine did to them is nobody's to predict.
    """
    if len(pairs) < 2:
        return Served()
    kept = sorted(pairs, key=lambda pair: pair[1] / pair[0])[: max(2, round((1 - DISTURBED) * len(pairs)))]
    bench, load = np.array(kept).T
    scale = bench.mean()
    constant, factor = nnls(np.stack([np.ones_like(bench), bench / scale], axis=1), load)[0]
    return (
        Served(float(constant), float(factor / scale)) if factor > 0 else Served(float(max(0.0, (load - bench).mean())))
    )


def shares(turns: Sequence[Logged], split: Mapping[bool, Halves]) -> dict[Sort, Share]:
    """How the parts of served steps differ from those of the bench, alone or beside others as they were."""
    found: dict[Sort, Share] = {}
    for judge, (alone, beside) in split.items():
        own = [turn for turn in turns if turn.judge == judge]
        bench = [_between(alone(*turn.sizes), beside(*turn.sizes), turn.beside) for turn in own]
        found |= _shares(own, np.array(bench)) if own else {}
    return found


def _shares(turns: Sequence[Logged], bench: Floats) -> dict[Sort, Share]:
    """Least squares of the parts of steps whose parts on the `bench` are these, none negative.

    The variance of a part counts as proportional to it, so that the sums of a sort come out right.
    """
    sorts = sorted({turn.sort for turn in turns})
    of = {sort: np.array([turn.sort == sort for turn in turns]) for sort in sorts}
    rested = np.array([float(turn.rested) for turn in turns])
    results = np.array([float(turn.taken.results) for turn in turns])
    decoding = np.array([turn.sizes[0] > 0 == turn.sizes[3] for turn in turns])
    again = np.array([turn.again for turn in turns])
    changed = decoding & ~again if (decoding & again).sum() >= FEWEST else np.zeros(len(turns))
    computing, hosting = bench.T
    *compute, change, waking = _least(
        [*(computing * each for each in of.values()), computing * changed, rested],
        np.array([turn.taken.computing for turn in turns]),
        computing,
    )
    *host, per_result, rousing = _least(
        [*(hosting * each for each in of.values()), results, rested],
        np.array([turn.taken.hosting for turn in turns]),
        hosting,
    )
    found = {}
    for sort, computes, hosts in zip(sorts, compute, host, strict=True):
        longer = change if sort[1] and not sort[2] else 0.0
        share = Share(computes + longer, hosts, per_result, (waking, rousing), computes / max(computes + longer, 1e-9))
        found[sort] = share
    return found


def _least(columns: Sequence[Floats], taken: Floats, bench: Floats) -> list[float]:
    """Coefficients of the columns. The most delayed steps are left out, as above."""
    matrix = np.stack(columns, axis=1)
    kept = np.argsort(taken / bench)[: max(2, round((1 - DISTURBED) * len(taken)))]
    scale, weight = np.maximum(matrix[kept].max(axis=0), 1e-30), 1 / np.sqrt(bench[kept])
    return [float(each) for each in nnls(matrix[kept] / scale * weight[:, None], taken[kept] * weight)[0] / scale]


def usual_parts(turn: Logged, found: Overheads, split: Mapping[bool, Halves]) -> tuple[float, float]:
    """What a step like this usually computes, and holds the interpreter for."""
    share, (alone, beside) = found.shares.get(turn.sort, Share()), split[turn.judge]
    computing, hosting = _between(alone(*turn.sizes), beside(*turn.sizes), turn.beside)
    computing *= share.computing * (share.again if turn.again else 1.0)
    hosting = share.hosting * hosting + share.per_result * turn.taken.results
    return computing + turn.rested * share.rest[0], hosting + turn.rested * share.rest[1]


def courses(
    loads: Sequence[Sequence[Sequence[Logged]]],
    found: Overheads,
    bench: Mapping[bool, Predict],
    split: Mapping[bool, Halves],
) -> tuple[list[Floats], float]:
    """Of each load the pace of its lanes: what their steps took over what they usually take; and a moment's seconds."""

    def cost(turn: Logged) -> tuple[float, float]:
        if turn.judge in split:
            return turn.taken.computing + turn.taken.hosting, sum(usual_parts(turn, found, split))
        served = found.steps.get(turn.kind, Served())
        return turn.seconds, served.constant + served.factor * bench[turn.judge](*turn.sizes)

    pieces = [
        [(n, turn.begun, *cost(turn)) for n, lane in enumerate(load) for turn in lane] for load in loads if any(load)
    ]
    width = moment(np.array([taken for load in pieces for *_, taken, _ in load]))
    paces = []
    for load in pieces:
        number, begun, taken, usual = np.array(load).T
        paces.append(course(number.astype(int), begun, taken, usual, len(loads[0]), width))
    return paces, width


def spreads(seen: Seen, found: Overheads, split: Mapping[bool, Halves]) -> dict[tuple[bool, bool], list[Pair]]:
    """Of like steps, by whether a judge takes them and whether they prefill: parts over their mean, at one pace.

    Of all steps in order of their length as many as PAIRS stand for the others.
    """
    ratios: dict[tuple[bool, bool], list[tuple[float, float]]] = defaultdict(list)
    loads = [load for load in seen.loads if any(load)]
    paces, width = courses(loads, found, {}, split) if split and loads else ([], MOMENT)
    for load, pace in zip(loads, paces, strict=False):
        begun = min(lane[0].begun for lane in load if lane)
        for number, lane in enumerate(load):
            for turn in lane:
                slower = pace[number, int((turn.begun - begun) / width)]
                computing, hosting = usual_parts(turn, found, split)
                if computing > 0 < hosting:
                    parts = turn.taken.computing / computing / slower, turn.taken.hosting / hosting / slower
                    ratios[turn.kind].append(parts)
    return {kind: _typical(np.array(pairs)) for kind, pairs in ratios.items() if len(pairs) >= PAIRS}


def _typical(pairs: Floats) -> list[Pair]:
    ordered = pairs[np.argsort(pairs.sum(axis=1))]
    middles = ((np.arange(PAIRS) + 0.5) * len(pairs) / PAIRS).astype(int)
    chosen = ordered[middles] / ordered[middles].mean(axis=0)
    return [(round(float(computing), 3), round(float(hosting), 3)) for computing, hosting in chosen]


def _between(alone: tuple[float, float], beside: tuple[float, float], share: float) -> tuple[float, float]:
    return alone[0] + share * (beside[0] - alone[0]), alone[1] + share * (beside[1] - alone[1])
