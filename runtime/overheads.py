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

from octavo.runtime.core.trace import InferenceRecord, QueryRecord
from octavo.runtime.lane import Lane, Turn
from octavo.runtime.local import Octavo
from octavo.runtime.replay import poisson, serve_load

Sizes: TypeAlias = tuple[int, int, int, int]
Predict: TypeAlias = Callable[[int, int, int, int], float]
ALONE, CROWD, SERVED = 12, 48, 300  # queries asked one at a time, at once, and as they come
DISTURBED = 0.003  # share of steps, the slowest of their kind


@dataclass(frozen=True, slots=True)
class Served:
    """A step in a served load takes `constant` seconds more than `factor` times what it takes on the bench."""

    constant: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Overheads:
    """Of steps, by whether a judge takes them; seconds from an arrival to its first step, and from the last result."""

    steps: Mapping[bool, Served] = field(default_factory=dict)
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
        self._around = self._alone()

    def _alone(self) -> tuple[float, float]:
        """Ask singly; a first round warms up."""
        octavo, recorder = self._octavo, self._octavo.loop.recorder
        octavo.ask_many(self._crowd(), **self._options)
        recorder.restart()
        for prompt in self._prompts[:ALONE]:
            octavo.ask(prompt, **self._options)
        octavo.loop.settle()
        queries = [record for record in recorder.records() if isinstance(record, QueryRecord)]
        inferences = [record for record in recorder.records() if isinstance(record, InferenceRecord)]
        return _around(queries, inferences)

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
        serve_load(self._octavo, poisson(self._prompts, rate, SERVED, seed), **{**self._options, "seed": seed})
        self._turns += [turn for log in logs for turn in log.close()]

    def overheads(self) -> Overheads:
        """What all served loads say together."""
        steps = {
            judge: _served([(expected(*sizes), seconds) for of, seconds, sizes in self._turns if of == judge])
            for judge, expected in self._bench.items()
        }
        return Overheads(steps, *self._around)


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


def _around(queries: Sequence[QueryRecord], inferences: Sequence[InferenceRecord]) -> tuple[float, float]:
    """Medians: from an arrival to the first step, and from the last result to the answer."""
    first: dict[int, float] = defaultdict(lambda: float("inf"))
    last: dict[int, float] = defaultdict(float)
    for record in inferences:
        first[record.query] = min(first[record.query], record.scheduled or first[record.query])
        last[record.query] = max(last[record.query], record.ended or 0.0)
    before = [first[query.query] - query.arrival for query in queries]
    after = [query.ended - last[query.query] for query in queries if query.ended is not None]
    return max(0.0, median(before)), max(0.0, median(after))


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
