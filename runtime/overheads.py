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
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import nnls

from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record
from octavo.runtime.lane import Lane, Turn
from octavo.runtime.local import Octavo
from octavo.runtime.replay import poisson, serve_load

Kind: TypeAlias = tuple[bool, bool]
Sizes: TypeAlias = tuple[int, int, int, int]
Predict: TypeAlias = Callable[[int, int, int, int], float]
ALONE, CROWD, SERVED = 12, 48, 300  # queries asked one at a time, at once, and as they come
UNQUEUED = 25  # per cent of the queries that arrive while the first device they ask is free, more or less
DISTURBED = 0.003  # share of steps, the slowest of their kind


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


class Calibration:
    """Loads like the one to be recorded, served before and after it, so that a machine that drifts is met half-way.

    `bench` gives the seconds of a step on the bench, by whether a judge takes it.
    """

    def __init__(
        self, octavo: Octavo, prompts: Sequence[str], bench: Mapping[bool, Predict], options: dict[str, Any]
    ) -> None:
        self._octavo = octavo
        self._prompts = prompts
        self._bench = bench
        self._options = options
        self._turns: list[tuple[bool, float, Sizes]] = []
        self._waits: list[float] = []
        self._after = self._alone()

    def _alone(self) -> float:
        """Ask singly, after a first round that warms up: seconds from the last result to the answer."""
        octavo, recorder = self._octavo, self._octavo.loop.recorder
        octavo.ask_many(self._crowd(), **self._options)
        recorder.restart()
        for prompt in self._prompts[:ALONE]:
            octavo.ask(prompt, **self._options)
        octavo.loop.settle()
        return closing(list(recorder.records()))

    def _crowd(self) -> list[str]:
        return [self._prompts[number % len(self._prompts)] for number in range(CROWD)]

    def rate(self, share: float) -> float:
        """A share of the queries a second that the machine answers when many are asked at once."""
        begun = perf_counter()
        self._octavo.ask_many(self._crowd(), **self._options)
        return share * CROWD / (perf_counter() - begun)

    def serve(self, rate: float) -> None:
        """Serve a load of other seeds than the one to be recorded, and note what its steps take."""
        seed = self._options.get("seed", 0) + 1 + len(self._turns)
        logs = [_Log(lane, self._octavo.ensemble.value_model) for lane in self._octavo.placed.lanes]
        load = poisson(self._prompts, rate, SERVED, seed)
        trace = serve_load(self._octavo, load, **{**self._options, "seed": seed})
        self._turns += [turn for log in logs for turn in log.close()]
        self._waits += waits(trace)

    def overheads(self) -> Overheads:
        """What all served loads say together."""
        pairs: dict[Kind, list[tuple[float, float]]] = defaultdict(list)
        for judge, seconds, sizes in self._turns:
            pairs[judge, sizes[3] > 0].append((self._bench[judge](*sizes), seconds))
        unqueued = float(np.percentile(self._waits, UNQUEUED)) if self._waits else 0.0
        return Overheads({kind: _served(found) for kind, found in pairs.items()}, unqueued, self._after)


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


def trimmed(values: Sequence[float]) -> float:
    """Mean without the largest twentieth: those steps were held up by something else on the machine."""
    kept = sorted(values)[: max(1, len(values) * 19 // 20)]
    return mean(kept)


def waits(trace: Sequence[Record]) -> list[float]:
    """Seconds from each query's arrival to its first step."""
    first: dict[int, float] = defaultdict(lambda: float("inf"))
    for record in trace:
        if isinstance(record, InferenceRecord) and record.scheduled is not None:
            first[record.query] = min(first[record.query], record.scheduled)
    return [first[r.query] - r.arrival for r in trace if isinstance(r, QueryRecord) and r.query in first]


def closing(trace: Sequence[Record]) -> float:
    """The median of the seconds from a query's last result to its answer."""
    last: dict[int, float] = defaultdict(float)
    for record in trace:
        if isinstance(record, InferenceRecord):
            last[record.query] = max(last[record.query], record.ended or 0.0)
    after = [r.ended - last[r.query] for r in trace if isinstance(r, QueryRecord) and r.ended is not None]
    return max(0.0, median(after)) if after else 0.0


class _Log:
    """Every turn of a lane, and how long it was until the lane asked for the next one."""

    def __init__(self, lane: Lane, value_model: str | None) -> None:
        self._lane = lane
        self._value = value_model
        self._turns: list[tuple[float, bool, Sizes]] = []
        self._asked: list[float] = []
        self._next_turn = lane.next_turn
        lane.next_turn = self.next_turn  # type: ignore[method-assign]

    def next_turn(self) -> Turn | None:
        now = perf_counter()
        self._asked.append(now)
        turn = self._next_turn()
        if turn is not None:
            step = turn.step
            sizes = (step.decodes, step.context, step.prefill_tokens, len(step.chunks))
            self._turns.append((now, turn.model == self._value, sizes))
        return turn

    def close(self) -> list[tuple[bool, float, Sizes]]:
        """Whether a judge took it, seconds and sizes of each step."""
        self._lane.next_turn = self._next_turn  # type: ignore[method-assign]
        after = dict(zip(self._asked, self._asked[1:], strict=False))
        return [(of_judge, after[at] - at, sizes) for at, of_judge, sizes in self._turns if at in after]
