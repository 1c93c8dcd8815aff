"""Times the steps of loaded models, as their lanes take them: every model of a lane in turn, all lanes at once."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from threading import Event, Thread
from time import monotonic, perf_counter, thread_time
from typing import NamedTuple

import numpy as np

from octavo.profiles.latency import StepTime
from octavo.runtime.contents import Contents, Request
from octavo.runtime.core.query import Candidate, Inference, Query
from octavo.runtime.core.scheduler import Step
from octavo.runtime.lane import Lane
from octavo.runtime.pace import Clock, levels
from octavo.runtime.parts import Clocked, Taken, parts

DECODES = 8  # steps of a cell's rows
ROUNDS = 2
SLICE = 1.0  # seconds of the bench for all lanes at once, before each runs alone again
ALONE = 0.3  # of the time for steps, in which the lanes run by themselves
ARRIVALS = 1 << 40  # ids of queries that nobody asked


class Cell(NamedTuple):
    """`queries` prompts of `tokens` tokens; each model decodes `samples` rows of each, or judges each of them."""

    queries: int
    samples: int
    tokens: int


class Kind(NamedTuple):
    """What is alike about steps whose times belong together."""

    judge: bool
    decodes: int
    prefill_tokens: int
    prefill_rows: int
    past: int
    cell: int  # tokens of the cell, as the context's measure

    @classmethod
    def of(cls, step: Step, cell: Cell, *, judge: bool) -> Kind:
        past = sum(chunk.start for chunk in step.chunks)
        return cls(judge, step.decodes, step.prefill_tokens, len(step.chunks), past, cell.tokens)


class Timed(NamedTuple):
    """A step: of which kind, on which lane, when it began, and the seconds it took, in all and by its parts."""

    kind: Kind
    lane: int
    context: int
    begun: float
    seconds: float
    taken: Taken

    @property
    def spent(self) -> float:
        """The processor's seconds: what the lane waited for is not in them."""
        return self.taken.computing + self.taken.hosting

    def at_pace(self, pace: float) -> Timed:
        """As it would have been on a machine that is so many times as fast."""
        computing, hosting, results = self.taken
        return self._replace(seconds=self.seconds / pace, taken=Taken(computing / pace, hosting / pace, results))


def step_times(steps: Iterable[Timed], *, judge: bool, alone: Iterable[Timed] = (), fewest: int = 2) -> list[StepTime]:
    """Median and half the interquartile range of each kind that was seen often enough, at the machine's mean pace.

    With the steps of lanes that ran `alone`, the parts of the step as well, where both know them.
    """
    apart = _kinds(alone, judge)
    found = []
    for kind, timed in sorted(_kinds(steps, judge).items()):
        if len(timed) < fewest:
            continue
        seconds = [each.seconds for each in timed]
        found.append(
            StepTime(
                decodes=kind.decodes,
                context=round(sum(each.context for each in timed) / len(timed)),
                prefill_tokens=kind.prefill_tokens,
                prefill_rows=kind.prefill_rows,
                past=kind.past,
                seconds=median(seconds),
                spread=float(np.subtract(*np.percentile(seconds, [75, 25]))) / 2,
                samples=len(timed),
                alone=parts([each.taken for each in apart[kind]]) if kind in apart else None,
                beside=parts([each.taken for each in timed]) if kind in apart else None,
            )
        )
    return found


def _kinds(steps: Iterable[Timed], judge: bool) -> dict[Kind, list[Timed]]:
    found: dict[Kind, list[Timed]] = defaultdict(list)
    for each in steps:
        if each.kind.judge == judge:
            found[each.kind].append(each)
    return found


def grid(context: int, max_rows: int, samples: int, max_step_tokens: int) -> list[Cell]:
    """Cells over batch sizes and contexts that these limits allow."""
    lengths = sorted({max(1, min(context - DECODES - 2, tokens)) for tokens in _lengths(context)})
    crowds = [1, 2, 4, 8, 16, 32]
    cells = [Cell(1, 1, tokens) for tokens in lengths]
    cells += [Cell(queries, samples, tokens) for tokens in lengths for queries in crowds]
    return [
        cell
        for cell in dict.fromkeys(cells)
        if cell.queries * cell.samples <= max_rows and cell.queries * cell.tokens <= max_step_tokens
    ]


def _lengths(context: int) -> Iterator[int]:
    """8, 16, 32, ... up to the context."""
    tokens = 8
    while tokens < context:
        yield tokens
        tokens *= 2
    yield context


class Stepper:
    """Drives the models of one lane through cells; nothing else may use the lane meanwhile."""

    def __init__(self, number: int, lane: Lane, contents: Contents, value: str | None, ids: Iterator[int]) -> None:
        self.lane = lane
        self.steps: list[Timed] = []
        self._number = number
        self._contents = contents
        self._value = value if value in lane.engines else None
        self._experts = [model for model in lane.engines if model != value]
        self._ids = ids
        self._rng = np.random.default_rng(0)

    def run(self, cell: Cell) -> None:
        """A cell's prefills and decodes, then more prompts beside the decoding rows, then its judgements."""
        asked = self._ask(cell)
        for _ in range((2 + DECODES) * max(1, len(self._experts))):
            self._turn(cell)
        asked += self._ask(cell._replace(queries=max(1, cell.queries // 4)))
        for _ in self._experts:
            self._turn(cell)
        self._forget(asked)
        if self._value:
            self._forget(self._judge(cell))

    def _ask(self, cell: Cell) -> list[Inference]:
        """Queue prompts on every expert, as far as there is room."""
        asked: list[Inference] = []
        for model in self._experts:
            scheduler = self.lane.schedulers[model]
            for _ in range(cell.queries):
                query = self._open(cell.tokens)
                group = [Inference(query, model, sample) for sample in range(cell.samples)]
                if len(scheduler) + len(group) > scheduler.limits.max_rows or not scheduler.fits(group[0], len(group)):
                    self._contents.close(query)
                    break
                self.lane.submit(group)
                asked += group
        return asked

    def _judge(self, cell: Cell) -> list[Inference]:
        """Judge as many candidates as the cell has queries; half of what each reads is the prompt."""
        asked = []
        for _ in range(cell.queries):
            query = self._open(max(1, cell.tokens // 2))
            rest = max(1, cell.tokens - query.prompt_tokens)
            tokens = self._rng.integers(3, 30, rest)
            candidate = self._contents.add(Inference(query, "measured"), tokens, 0.0, ended=True)
            asked.append(Inference(query, self._value or "", judges=candidate))
            self.lane.submit(asked[-1:])
        while self._turn(cell):
            continue
        return asked

    def _open(self, tokens: int) -> Query:
        query = Query(next(self._ids), tokens, DECODES * 4)
        self._contents.open(Request(query, self._rng.integers(3, 30, tokens), ends=False))
        return query

    def _turn(self, cell: Cell) -> bool:
        """One step of whoever's turn it is, timed from the question what to do until it is booked."""
        begun, spent = perf_counter(), thread_time()
        turn = self.lane.next_turn()
        if turn is None:
            return False
        kind, context = Kind.of(turn.step, cell, judge=turn.model == self._value), turn.step.context
        engine = Clocked(turn.engine)
        results = engine.run(turn.step)
        inferences = [result.inference if isinstance(result, Candidate) else result.judge for result in results]  # type: ignore[union-attr]
        stopped = [turn.scheduler.job(inference) for inference in inferences if inference is not None]
        turn.scheduler.commit(turn.step, 1, [job for job in stopped if job is not None])
        taken = Taken(engine.computing, thread_time() - spent - engine.computing, len(results))
        self.steps.append(Timed(kind, self._number, context, begun, perf_counter() - begun, taken))
        return True

    def _forget(self, asked: Sequence[Inference]) -> None:
        for inference in asked:
            self.lane.withdraw(inference)
            self._contents.close(inference.query)


@dataclass(slots=True)
class Bench:
    """What was timed with all lanes at once, and with one lane by itself."""

    together: list[Timed] = field(default_factory=list)
    alone: list[Timed] = field(default_factory=list)

    def step_times(self, *, judge: bool) -> list[StepTime]:
        return step_times(self.together, judge=judge, alone=self.alone)


def time_steps(
    lanes: Sequence[Lane],
    contents: Contents,
    value_model: str | None,
    cells: Sequence[Cell],
    seconds: float,
    seed: int,
    *,
    apart: bool = False,
) -> Bench:
    """Drive all lanes at once through the cells, in changing order, for about so long and at least twice.

    The first round, from the smallest cell on, warms up; cells that it does not reach in a third of the time are too
    large for this machine and are left out. With `apart`, the first lane and the last (where the value model is) run by
    themselves in between.
    """
    ids = count(ARRIVALS)
    steppers = [Stepper(number, lane, contents, value_model, ids) for number, lane in enumerate(lanes)]
    until = monotonic() + seconds
    ordered = sorted(cells, key=lambda cell: (cell.queries * cell.tokens, cell))
    reached = ordered[: min(_in_turn(steppers, lambda _: iter(ordered), seconds / 3))]
    _taken(steppers)
    found, part = Bench(), min(SLICE, seconds / 4)
    decks = {stepper: Deck(reached, seed) for stepper in steppers}
    single = {stepper: Deck(reached, seed) for stepper in dict.fromkeys([steppers[0], steppers[-1]] if apart else [])}
    share = part * ALONE / (1 - ALONE) / max(1, len(single))
    while monotonic() < until or any(deck.rounds < ROUNDS for deck in [*decks.values(), *single.values()]):
        _in_turn(steppers, decks.__getitem__, part)
        found.together += _taken(steppers)
        for stepper, deck in single.items():
            _in_turn([stepper], lambda _, deck=deck: deck, share)  # type: ignore[misc]
            found.alone += _taken([stepper])
    clock: Clock = "spent" if apart else "seconds"
    return Bench(levels(found.together, clock), levels(found.alone, clock))


class Deck:
    """All cells in changing order, for ever; counts how often all have been dealt."""

    def __init__(self, cells: Sequence[Cell], seed: int) -> None:
        self._cells = list(cells)
        self._rng = random.Random(seed)
        self._left: list[Cell] = []
        self.rounds = -1

    def __iter__(self) -> Iterator[Cell]:
        return self

    def __next__(self) -> Cell:
        if not self._left:
            self.rounds += 1
            self._rng.shuffle(self._cells)
            self._left = list(self._cells)
        return self._left.pop()


def _in_turn(steppers: Sequence[Stepper], deck: Callable[[Stepper], Iterator[Cell]], seconds: float) -> list[int]:
    """Each lane takes cells from its deck for so long; how many they took. None runs alone while another still does."""
    until, counts = monotonic() + seconds, [0] * len(steppers)
    done = [Event() for _ in steppers]

    def drive(number: int, stepper: Stepper) -> None:
        try:
            for cell in deck(stepper):
                stepper.run(cell)
                counts[number] += 1
                if monotonic() > until:
                    break
        finally:
            done[number].set()
        kept = len(stepper.steps)
        while not all(each.is_set() for each in done):
            stepper.run(cell)
        del stepper.steps[kept:]

    threads = [Thread(target=drive, args=pair) for pair in enumerate(steppers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def _taken(steppers: Sequence[Stepper]) -> list[Timed]:
    """What the steppers have timed since the last time."""
    found = [step for stepper in steppers for step in stepper.steps]
    for stepper in steppers:
        stepper.steps.clear()
    return found
