"""What steps take in a served load beside what they take on the bench, and what happens outside of steps.

Under load the threads of the devices, of the arrivals and of the answers share the processor's caches and the
interpreter's lock, so a step takes longer than the same step timed alone. A short load, other than the one that is
recorded, says by how much: seconds from one step to the next are a line in the seconds of the bench.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, median
from time import perf_counter, thread_time
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record
from octavo.runtime.lane import Lane, Turn
from octavo.runtime.local import Octavo
from octavo.runtime.parts import Clocked, Taken
from octavo.runtime.replay import poisson, serve_load

Kind: TypeAlias = tuple[bool, bool]
Sort: TypeAlias = tuple[bool, bool, bool]  # whether a judge takes it, whether it decodes, whether it prefills
Sizes: TypeAlias = tuple[int, int, int, int]
Predict: TypeAlias = Callable[[int, int, int, int], float]
Half: TypeAlias = Callable[[int, int, int, int], tuple[float, float]]
Halves: TypeAlias = tuple[Half, Half]  # seconds that a step computes and hosts: alone, and beside others
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
    shares: Mapping[Sort, Share] = field(default_factory=dict)
    per_arrival: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """A served step computes so many times as long as on the bench, and holds the interpreter so many times as long.

    Each of its results takes so many seconds more there.
    """

    computing: float = 1.0
    hosting: float = 1.0
    per_result: float = 0.0


@dataclass(slots=True)
class Logged:
    """A step of a served load, from one to the next; `beside` is the share of it in which others ran."""

    judge: bool
    begun: float
    seconds: float
    sizes: Sizes
    taken: Taken
    beside: float = 0.0

    @property
    def kind(self) -> Kind:
        return self.judge, self.sizes[3] > 0

    @property
    def sort(self) -> Sort:
        return self.judge, self.sizes[0] > 0, self.sizes[3] > 0


class Calibration:
    """Loads like the one to be recorded, served before and after it, so that a machine that drifts is met half-way.

    `bench` gives the seconds of a step on the bench, by whether a judge takes it; `split` its parts, where lanes share
    a process.
    """

    def __init__(
        self,
        octavo: Octavo,
        prompts: Sequence[str],
        bench: Mapping[bool, Predict],
        options: dict[str, Any],
        split: Mapping[bool, Halves] | None = None,
    ) -> None:
        self._octavo = octavo
        self._prompts = prompts
        self._bench = bench
        self._options = options
        self._split = split or {}
        self._turns: list[Logged] = []
        self._arrivals: list[float] = []
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
        trace = serve_load(self._octavo, load, opened=self._arrivals.append, **{**self._options, "seed": seed})
        self._turns += beside_others([log.close() for log in logs])
        self._waits += waits(trace)

    def overheads(self) -> Overheads:
        """What all served loads say together."""
        pairs: dict[Kind, list[tuple[float, float]]] = defaultdict(list)
        for turn in self._turns:
            pairs[turn.kind].append((self._bench[turn.judge](*turn.sizes), turn.seconds))
        unqueued = float(np.percentile(self._waits, UNQUEUED)) if self._waits else 0.0
        steps = {kind: _served(found) for kind, found in pairs.items()}
        opening = mean(self._arrivals) if self._arrivals else 0.0
        return Overheads(steps, unqueued, self._after, shares(self._turns, self._split), opening)


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


def beside_others(lanes: Sequence[list[Logged]]) -> list[Logged]:
    """The turns of all lanes, each with the share of it in which another lane was in a turn of its own."""
    for lane in lanes:
        others = [(turn.begun, turn.begun + turn.seconds) for other in lanes if other is not lane for turn in other]
        ends = np.array(sorted(end for _, end in others))
        begins = np.array(sorted(begun for begun, _ in others))
        for turn in lane:
            overlap = _before(turn.begun + turn.seconds, begins, ends) - _before(turn.begun, begins, ends)
            turn.beside = min(1.0, overlap / turn.seconds)
    return [turn for lane in lanes for turn in lane]


def _before(moment: float, begins: NDArray[np.float64], ends: NDArray[np.float64]) -> float:
    """Seconds that intervals cover before a moment, each counted."""
    begun, ended = np.searchsorted(begins, moment), np.searchsorted(ends, moment)
    return float(begun * moment - begins[:begun].sum() - (ended * moment - ends[:ended].sum()))


def shares(turns: Sequence[Logged], split: Mapping[bool, Halves]) -> dict[Sort, Share]:
    """How the parts of served steps differ from those of the bench, alone or beside others as they were."""
    found: dict[Sort, Share] = {}
    for judge, (alone, beside) in split.items():
        own = [turn for turn in turns if turn.judge == judge]
        if not own:
            continue
        mixed = [_between(alone(*turn.sizes), beside(*turn.sizes), turn.beside) for turn in own]
        sorts = sorted({turn.sort for turn in own})
        columns = [
            [said[1] if turn.sort == sort else 0.0 for turn, said in zip(own, mixed, strict=True)] for sort in sorts
        ]
        matrix = np.array([*columns, [float(turn.taken.results) for turn in own]]).T
        hosting = np.array([turn.taken.hosting for turn in own])
        kept = np.argsort(hosting / np.array([said[1] for said in mixed]))[: max(2, round((1 - DISTURBED) * len(own)))]
        scale = np.maximum(matrix[kept].max(axis=0), 1e-30)
        *factors, per_result = nnls(matrix[kept] / scale, hosting[kept])[0] / scale
        for sort, factor in zip(sorts, factors, strict=True):
            both = [(turn.taken.computing, said[0]) for turn, said in zip(own, mixed, strict=True) if turn.sort == sort]
            served, bench = np.array(both).sum(axis=0)
            found[sort] = Share(float(served / bench), float(factor), float(per_result))
    return found


def _between(alone: tuple[float, float], beside: tuple[float, float], share: float) -> tuple[float, float]:
    return alone[0] + share * (beside[0] - alone[0]), alone[1] + share * (beside[1] - alone[1])


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
    """Every turn of a lane, how long it was until the lane asked for the next one, and the thread's part in that."""

    def __init__(self, lane: Lane, value_model: str | None) -> None:
        self._lane = lane
        self._value = value_model
        self._turns: list[Logged] = []
        self._last: tuple[float, float, Turn] | None = None
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
        return Logged(turn.model == self._value, begun, now - begun, sizes, taken)

    def close(self) -> list[Logged]:
        """What was logged, and no more from now on."""
        self._lane.next_turn = self._next_turn  # type: ignore[method-assign]
        return self._turns
