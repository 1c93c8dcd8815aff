"""Times the steps of loaded models, as their lanes take them: every model of a lane in turn, all lanes at once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from threading import Thread
from time import monotonic, perf_counter, thread_time
from typing import NamedTuple

import numpy as np

from octavo.profiles.latency import StepTime
from octavo.runtime.contents import Contents, Request
from octavo.runtime.core.query import Candidate, Inference, Query
from octavo.runtime.core.scheduler import Step
from octavo.runtime.lane import Lane
from octavo.runtime.parts import Clocked, Taken, parts

DECODES = 8  # steps of a cell's rows
ROUNDS = 2
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


@dataclass(slots=True)
class Times:
    """Seconds, contexts and parts of steps by kind."""

    seconds: dict[Kind, list[float]] = field(default_factory=dict)
    contexts: dict[Kind, list[int]] = field(default_factory=dict)
    taken: dict[Kind, list[Taken]] = field(default_factory=dict)

    def add(self, kind: Kind, context: int, seconds: float, taken: Taken) -> None:
        self.seconds.setdefault(kind, []).append(seconds)
        self.contexts.setdefault(kind, []).append(context)
        self.taken.setdefault(kind, []).append(taken)

    def step_times(self, *, judge: bool, fewest: int = 2, alone: Times | None = None) -> list[StepTime]:
        """Median and half the interquartile range of each kind that was seen often enough.

        With the times of a lane that ran `alone`, the parts of the step as well, where both know them.
        """
        both = alone.taken if alone else {}
        return [
            StepTime(
                decodes=kind.decodes,
                context=round(sum(self.contexts[kind]) / len(seconds)),
                prefill_tokens=kind.prefill_tokens,
                prefill_rows=kind.prefill_rows,
                past=kind.past,
                seconds=median(seconds),
                spread=float(np.subtract(*np.percentile(seconds, [75, 25]))) / 2,
                samples=len(seconds),
                alone=parts(both[kind]) if kind in both else None,
                beside=parts(self.taken[kind]) if kind in both else None,
            )
            for kind, seconds in sorted(self.seconds.items())
            if kind.judge == judge and len(seconds) >= fewest
        ]


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

    def __init__(self, lane: Lane, contents: Contents, value_model: str | None, ids: Iterator[int]) -> None:
        self.lane = lane
        self.times = Times()
        self._contents = contents
        self._value = value_model if value_model in lane.engines else None
        self._experts = [model for model in lane.engines if model != value_model]
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
        self.times.add(kind, context, perf_counter() - begun, taken)
        return True

    def _forget(self, asked: Sequence[Inference]) -> None:
        for inference in asked:
            self.lane.withdraw(inference)
            self._contents.close(inference.query)


def time_steps(
    lanes: Sequence[Lane], contents: Contents, value_model: str | None, cells: Sequence[Cell], seconds: float, seed: int
) -> Times:
    """Drive all lanes at once through the cells, in changing order, for about so long and at least twice.

    The first round, from the smallest cell on, warms up; cells that it does not reach in a third of the time are too
    large for this machine and are left out.
    """
    ids = count(ARRIVALS)
    drivers = [_Driver(Stepper(lane, contents, value_model, ids), seed) for lane in lanes]
    ordered = sorted(cells, key=lambda cell: (cell.queries * cell.tokens, cell))
    until = monotonic() + seconds
    threads = [Thread(target=driver.run, args=(ordered, until, seconds, drivers)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return merged([driver.stepper.times for driver in drivers])


def time_alone(
    lanes: Sequence[Lane], contents: Contents, value_model: str | None, cells: Sequence[Cell], seconds: float, seed: int
) -> Times:
    """The first lane and the last, where the value model is, each by itself, for about so long in all."""
    chosen = list(dict.fromkeys([lanes[0], lanes[-1]]))
    share = seconds / len(chosen)
    return merged([time_steps([lane], contents, value_model, cells, share, seed) for lane in chosen])


@dataclass(slots=True, eq=False)
class _Driver:
    """One lane's thread. It goes on until all have gone through their cells often enough, so that none runs alone."""

    stepper: Stepper
    seed: int
    rounds: int = 0

    def run(self, cells: Sequence[Cell], until: float, seconds: float, drivers: Sequence[_Driver]) -> None:
        rng, reached = random.Random(self.seed), []
        for cell in cells:
            self.stepper.run(cell)
            reached.append(cell)
            if monotonic() > until - seconds * 2 / 3:
                break
        self.stepper.times = Times()
        while monotonic() < until or any(driver.rounds < ROUNDS for driver in drivers):
            rng.shuffle(reached)
            for cell in reached:
                self.stepper.run(cell)
            self.rounds += 1


def merged(parts: Sequence[Times]) -> Times:
    """The times of several lanes as one."""
    times = Times()
    for part in parts:
        for kind, seconds in part.seconds.items():
            times.seconds.setdefault(kind, []).extend(seconds)
            times.contexts.setdefault(kind, []).extend(part.contexts[kind])
            times.taken.setdefault(kind, []).extend(part.taken[kind])
    return times
