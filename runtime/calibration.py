"""Serves loads like the one to be recorded, and writes down what each of their steps takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter, thread_time
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record
from octavo.runtime.handover import handover
from octavo.runtime.lane import Lane, Turn
from octavo.runtime.local import Octavo
from octavo.runtime.parts import Clocked, Taken
from octavo.runtime.replay import Arrival, poisson, serve_load

Kind: TypeAlias = tuple[bool, bool]  # whether a judge takes it, whether it prefills
Sort: TypeAlias = tuple[bool, bool, bool]  # whether a judge takes it, whether it decodes, whether it prefills
Sizes: TypeAlias = tuple[int, int, int, int]
SINGLY, CROWD, SERVED, LONE = 12, 48, 300, 60  # queries asked one at a time, at once, as they come, of one expert
BEGINNING = 5e-3  # seconds in which a query's first inferences are asked for
REST = 1e-3  # seconds without a step, after which the next finds the caches cold


@dataclass(slots=True)
class Logged:
    """A step of a served load, from one to the next; `beside` is the share of it in which others ran.

    `rested`: the lane had nothing to do before. `again`: the same model took the step before.
    """

    judge: bool
    begun: float
    seconds: float
    sizes: Sizes
    taken: Taken
    beside: float = 0.0
    rested: bool = False
    again: bool = False

    @property
    def kind(self) -> Kind:
        return self.judge, self.sizes[3] > 0

    @property
    def sort(self) -> Sort:
        return self.judge, self.sizes[0] > 0, self.sizes[3] > 0


@dataclass(slots=True)
class Seen:
    """What loads showed: the turns of each lane of each load, of how many inferences queries were and how many seconds
    of the processor it took to open them, waits, ends.

    `handovers` are seconds in which the interpreter changes hands; `lone` are turns while one expert was asked at a
    time. What several calibrations saw can be put together.
    """

    loads: list[list[list[Logged]]] = field(default_factory=list)
    lone: list[Logged] = field(default_factory=list)
    openings: list[tuple[int, float]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    endings: list[float] = field(default_factory=list)
    handovers: list[float] = field(default_factory=list)

    @property
    def turns(self) -> list[Logged]:
        return [turn for load in self.loads for lane in load for turn in lane]

    def add(self, other: Seen) -> None:
        for name in ("loads", "lone", "openings", "waits", "endings", "handovers"):
            getattr(self, name).extend(getattr(other, name))


class Calibration:
    """Loads like the one to be recorded, served before and after it, so that a machine that drifts is met half-way."""

    def __init__(self, octavo: Octavo, prompts: Sequence[str], options: dict[str, Any]) -> None:
        self.seen = Seen()
        self._octavo = octavo
        self._prompts = prompts
        self._options = options
        self.seen.handovers.append(handover())
        self._alone()

    def _alone(self) -> None:
        """Ask singly, after a first round that warms up: seconds from the last result to the answer."""
        octavo, recorder = self._octavo, self._octavo.loop.recorder
        octavo.ask_many(self._crowd(), **self._options)
        recorder.restart()
        for prompt in self._prompts[:SINGLY]:
            octavo.ask(prompt, **self._options)
        octavo.loop.settle()
        self.seen.endings += endings(list(recorder.records()))

    def _crowd(self) -> list[str]:
        return [self._prompts[number % len(self._prompts)] for number in range(CROWD)]

    def rate(self, share: float) -> float:
        """A share of the queries a second that the machine answers when many are asked at once."""
        begun = perf_counter()
        self._octavo.ask_many(self._crowd(), **self._options)
        return share * CROWD / (perf_counter() - begun)

    def serve(self, rate: float, queries: int = SERVED, seed: int | None = None) -> None:
        """Serve a load of another seed than the one to be recorded, and note what its steps take."""
        if seed is None:
            seed = self._options.get("seed", 0) + 1 + len(self.seen.turns)
        load = poisson(self._prompts, rate, queries, seed)
        opened: list[float] = []
        trace, turns = logged(self._octavo, load, opened, **{**self._options, "seed": seed})
        self.seen.loads.append(turns)
        self.seen.openings += zip(sizes_of(trace), opened, strict=True)
        self.seen.waits += waits(trace)

    def serve_one(self, rate: float, queries: int = LONE, seed: int | None = None) -> None:
        """Ask one expert: what steps take beside no others, after none, and of the model that took the one before."""
        if seed is None:
            seed = self._options.get("seed", 0) - 1
        options = {**self._options, "seed": seed, "policy": "single"}
        opened: list[float] = []
        trace, turns = logged(self._octavo, poisson(self._prompts, rate, queries, seed), opened, **options)
        self.seen.openings += zip(sizes_of(trace), opened, strict=True)
        self.seen.lone += [turn for lane in turns for turn in lane]


def logged(
    octavo: Octavo, load: Sequence[Arrival], opened: list[float], **options: Any
) -> tuple[list[Record], list[list[Logged]]]:
    """Serve a load; its trace, and every turn of each lane. `opened` gets the seconds of opening each query."""
    logs = [_Log(lane, octavo.ensemble.value_model) for lane in octavo.placed.lanes]
    trace = serve_load(octavo, load, opened=opened.append, **options)
    turns = [log.close() for log in logs]
    mark_beside(turns)
    return trace, turns


def mark_beside(lanes: Sequence[list[Logged]]) -> None:
    """Tell each turn in which share of it another lane was in a turn of its own."""
    for lane in lanes:
        others = [(turn.begun, turn.begun + turn.seconds) for other in lanes if other is not lane for turn in other]
        ends = np.array(sorted(end for _, end in others))
        begins = np.array(sorted(begun for begun, _ in others))
        for turn in lane:
            overlap = _before(turn.begun + turn.seconds, begins, ends) - _before(turn.begun, begins, ends)
            turn.beside = min(1.0, overlap / turn.seconds)


def _before(moment: float, begins: NDArray[np.float64], ends: NDArray[np.float64]) -> float:
    """Seconds that intervals cover before a moment, each counted."""
    begun, ended = np.searchsorted(begins, moment), np.searchsorted(ends, moment)
    return float(begun * moment - begins[:begun].sum() - (ended * moment - ends[:ended].sum()))


def sizes_of(trace: Sequence[Record]) -> list[int]:
    """How many inferences each query began with, in the order of their arrival."""
    queries = sorted((r.arrival, r.query) for r in trace if isinstance(r, QueryRecord))
    first = {query: arrival for arrival, query in queries}
    counts = dict.fromkeys(first, 0)
    for record in trace:
        if isinstance(record, InferenceRecord) and not record.judge:
            counts[record.query] += record.submitted <= first[record.query] + BEGINNING
    return [counts[query] for _, query in queries]


def waits(trace: Sequence[Record]) -> list[float]:
    """Seconds from each query's arrival to its first step."""
    first: dict[int, float] = defaultdict(lambda: float("inf"))
    for record in trace:
        if isinstance(record, InferenceRecord) and record.scheduled is not None:
            first[record.query] = min(first[record.query], record.scheduled)
    return [first[r.query] - r.arrival for r in trace if isinstance(r, QueryRecord) and r.query in first]


def endings(trace: Sequence[Record]) -> list[float]:
    """Seconds from each query's last result to its answer."""
    last: dict[int, float] = defaultdict(float)
    for record in trace:
        if isinstance(record, InferenceRecord):
            last[record.query] = max(last[record.query], record.ended or 0.0)
    return [r.ended - last[r.query] for r in trace if isinstance(r, QueryRecord) and r.ended is not None]


class _Log:
    """Every turn of a lane, how long it was until the lane asked for the next one, and the thread's part in that."""

    def __init__(self, lane: Lane, value_model: str | None) -> None:
        self._lane = lane
        self._value = value_model
        self._turns: list[Logged] = []
        self._last: tuple[float, float, Turn] | None = None
        self._before: tuple[float, str] = 0.0, ""
        self._next_turn = lane.next_turn
        lane.next_turn = self.next_turn  # type: ignore[method-assign]

    def next_turn(self) -> Turn | None:
        now, spent = perf_counter(), thread_time()
        if self._last is not None:
            self._turns.append(self._logged(*self._last, now, spent))
        turn, self._last = self._next_turn(), None
        if turn is not None:
            turn = replace(turn, engine=Clocked(turn.engine))
            self._last = now, spent, turn
        return turn

    def _logged(self, begun: float, spent: float, turn: Turn, now: float, until: float) -> Logged:
        step, engine = turn.step, turn.engine
        assert isinstance(engine, Clocked)
        taken = Taken(engine.computing, max(0.0, until - spent - engine.computing), engine.results)
        sizes = (step.decodes, step.context, step.prefill_tokens, len(step.chunks))
        (ended, model), self._before = self._before, (now, turn.model)
        rested, again = begun - ended > REST, turn.model == model
        return Logged(turn.model == self._value, begun, now - begun, sizes, taken, rested=rested, again=again)

    def close(self) -> list[Logged]:
        """What was logged, and no more from now on."""
        self._lane.next_turn = self._next_turn  # type: ignore[method-assign]
        return self._turns
