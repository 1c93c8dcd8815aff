"""What steps take in a served load above what they take on the bench, and what happens outside of steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from time import perf_counter
from typing import Any

from octavo.runtime.core.trace import InferenceRecord, QueryRecord
from octavo.runtime.lane import Lane, Turn
from octavo.runtime.local import Octavo

Predict = Callable[[int, int, int, int], float]
ALONE, CROWD = 12, 48  # queries asked one at a time, and at once


@dataclass(frozen=True, slots=True)
class Overheads:
    """Seconds per step (by whether a judge takes it), from an arrival to its first step, from the last result on."""

    per_step: Mapping[bool, float] = field(default_factory=dict)
    per_inference: float = 0.0
    per_query: float = 0.0


def overheads(
    octavo: Octavo, prompts: Sequence[str], predict: Mapping[bool, Predict], options: dict[str, Any]
) -> tuple[float, Overheads]:
    """Queries per second that the machine can do, and the overheads, from prompts asked singly and at once."""
    crowd = [prompts[number % len(prompts)] for number in range(CROWD)]
    octavo.ask_many(crowd, **options)
    recorder = octavo.loop.recorder
    recorder.restart()
    logs = [_Log(lane, octavo.ensemble.value_model) for lane in octavo.placed.lanes]
    for prompt in crowd[:ALONE]:
        octavo.ask(prompt, **options)
    octavo.loop.settle()
    queries = [record for record in recorder.records() if isinstance(record, QueryRecord)]
    inferences = [record for record in recorder.records() if isinstance(record, InferenceRecord)]
    begun = perf_counter()
    octavo.ask_many(crowd, **options)
    capacity = CROWD / (perf_counter() - begun)
    octavo.loop.settle()
    per_step = {}
    for judge, expected in predict.items():
        above = [seconds - expected(*step) for log in logs for seconds, step in log.close(judge)]
        per_step[judge] = max(0.0, mean(above)) if above else 0.0
    return capacity, Overheads(per_step, *_around(queries, inferences))


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
        self._turns: list[tuple[float, bool, tuple[int, int, int, int]]] = []
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

    def close(self, judge: bool) -> list[tuple[float, tuple[int, int, int, int]]]:
        """Seconds and sizes of the steps of one kind."""
        self._lane.next_turn = self._next_turn  # type: ignore[method-assign]
        after = dict(zip(self._asked, self._asked[1:], strict=False))
        return [(after[at] - at, sizes) for at, of_judge, sizes in self._turns if of_judge == judge and at in after]
