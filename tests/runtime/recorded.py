"""A real run written down instant by instant, and the same run in the simulator's world."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, local
from time import perf_counter
from typing import Any

import pytest

from octavo.runtime.core.policies import Policy
from octavo.runtime.core.query import Candidate, Inference, Query, Score
from octavo.runtime.core.scheduler import Chunk, Step
from octavo.runtime.lane import Lane as RealLane
from octavo.runtime.local import Octavo
from octavo.runtime.loop import Loop
from octavo.runtime.ort.engine import ExpertEngine
from octavo.runtime.value import ValueEngine
from octavo.runtime.verifier import VERIFIER
from octavo.simulator.device import Device
from octavo.simulator.lane import Lane, Leap
from octavo.simulator.latency.model import EXACT, Band, Line
from octavo.simulator.station import Berth, Station
from octavo.simulator.world import Ask, World

APART = 2e-6  # seconds between two instants, at least: sums of floats must not change their order
Name = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """A step: when it began, what it held, and who was preempted, admitted and stopped in it, in order."""

    began: float
    model: str
    decodes: int
    context: int
    prefill_tokens: int
    preempted: tuple[Name, ...]
    admitted: tuple[Name, ...]
    stopped: tuple[Name, ...]


def name(inference: Inference) -> Name:
    """An inference, whichever run it belongs to."""
    read = inference.judges or inference.continues
    return inference.query.id, inference.model, inference.sample, read is not None and name(read.inference)


@dataclass
class Tape:
    """Everything that was decided, and when.

    A decision (a query asked, cancelled or expired; the end of a step with all that follows, up to the next step's
    beginning) happens at one instant: whoever decides keeps the others out, and a device that was idle begins with its
    mail before anybody else decides. The engines run outside, side by side.
    """

    asked: list[Ask] = field(default_factory=list)
    ended_early: list[tuple[float, str, Query]] = field(default_factory=list)
    steps: dict[str, list[Taken]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    results: dict[Name, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.changed = Condition()
        self.deciding = False
        self.idle: set[RealLane] = set()
        self.start, self.now = perf_counter(), 0.0
        self.mine = local()

    def enter(self, lane: RealLane | None = None) -> None:
        """Begin to decide; a lane that was idle goes on with what woke it, at the same instant."""
        with self.changed:
            woken = lane in self.idle
            self.changed.wait_for(lambda: not self.deciding and (woken or not self.waking()))
            self.deciding = self.mine.decides = True
            if woken and lane is not None:
                self.idle.discard(lane)
            else:
                self.now = max(perf_counter() - self.start, self.now + APART)

    def leave(self) -> None:
        with self.changed:
            self.deciding = self.mine.decides = False
            self.changed.notify_all()

    def waking(self) -> bool:
        return any(lane._motions or lane._arrivals for lane in self.idle)

    @property
    def decides(self) -> bool:
        return getattr(self.mine, "decides", False)


@contextmanager
def taped() -> Iterator[Tape]:
    """Whatever Octavo is loaded inside the block is recorded on the tape."""
    tape = Tape()
    with pytest.MonkeyPatch.context() as patch:
        _tape_clients(tape, patch)
        _tape_lanes(tape, patch)
        yield tape


def _tape_clients(tape: Tape, patch: pytest.MonkeyPatch) -> None:
    def instant(method: str, note: Callable[[Any], None]) -> None:
        inner = getattr(Loop, method)

        def decided(self: Loop, what: Any, *rest: Any) -> None:
            within = tape.decides  # a listener of a closed query
            if not within:
                tape.enter()
            try:
                note(what)
                inner(self, what, *rest)
            finally:
                if not within:
                    tape.leave()

        patch.setattr(Loop, method, decided)

    instant("submit", lambda request: tape.asked.append(Ask(tape.now, request.query)))
    for method in ("cancel", "_expire"):
        instant(method, lambda query, method=method: tape.ended_early.append((tape.now, method, query)))


def _tape_lanes(tape: Tape, patch: pytest.MonkeyPatch) -> None:
    open_mail, wait, next_turn = RealLane.open_mail, RealLane.wait, RealLane.next_turn
    turns = local()

    def open_mail_taped(self: RealLane) -> None:
        if self.device != VERIFIER and not tape.decides:
            tape.enter(self)
        open_mail(self)

    def next_turn_taped(self: RealLane) -> Any:
        turns.last = self, next_turn(self)
        return turns.last[1]

    def wait_taped(self: RealLane) -> bool:
        if self.device != VERIFIER:
            with tape.changed:
                tape.idle.add(self)
            tape.leave()
        return wait(self)

    for engine in (ExpertEngine, ValueEngine):

        def run_taped(self: Any, step: Step, run: Any = engine.run) -> Any:
            lane, turn = turns.last
            began, arrivals = tape.now, step.chunks[len(step.chunks) - step.admitted :]
            preempted = tuple(name(job.inference) for job in step.preempted)
            admitted = tuple(name(job.inference) for chunk in arrivals for job in chunk.prompt.jobs)
            tape.leave()
            results = run(self, step)
            tape.enter()
            stopped = tuple(name(each.judge if isinstance(each, Score) else each.inference) for each in results)
            tape.results.update(zip(stopped, results, strict=True))
            work = (step.decodes, step.context, step.prefill_tokens)
            tape.steps[lane.device].append(Taken(began, turn.model, *work, preempted, admitted, stopped))
            tape.seconds[turn.model].append(tape.now - began)
            return results

        patch.setattr(engine, "run", run_taped)
    patch.setattr(RealLane, "open_mail", open_mail_taped)
    patch.setattr(RealLane, "next_turn", next_turn_taped)
    patch.setattr(RealLane, "wait", wait_taped)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What inferences brought. Those that were withdrawn would have written all that they might."""

    results: dict[Name, Any]

    def length(self, inference: Inference) -> int:
        result = self.results.get(name(inference))
        return result.new_tokens if isinstance(result, Candidate) else inference.budget

    def result(self, inference: Inference, new_tokens: int) -> Candidate | Score:
        was = self.results[name(inference)]
        if isinstance(was, Score):
            assert inference.judges is not None
            return Score(inference.judges, was.value, inference)
        return Candidate(inference, new_tokens, was.mean_logprob, was.answer, was.value, was.finished)

    def correct(self, candidate: Candidate) -> bool | None:
        return None

    def seconds_to_verify(self, inference: Inference) -> float | None:
        return None


@dataclass
class Stopwatch:
    """The seconds that each step of a model took, in their order."""

    seconds: Sequence[float]
    lane: Lane | None = None
    label: str = "recorded"
    band: Band = EXACT

    def decode(self, rows: int, context: int) -> Line:
        return Line(self.mixed(rows, context, ()), 0.0)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        assert self.lane is not None
        return self.seconds[self.lane.scheduler.clock]


class Watched(Device):
    """A device that writes down the steps it takes."""

    def __init__(self, name_: str, lanes: Sequence[Lane], steps: list[Taken]) -> None:
        super().__init__(name_, lanes)
        self.taken = steps

    def finish(self) -> Leap | None:
        leap = super().finish()
        assert leap is not None
        step, jobs = leap.step, (leap.step.preempted, leap.admitted, leap.stopped)
        names = (tuple(name(job.inference) for job in each) for each in jobs)
        work = (step.decodes, step.context, step.prefill_tokens)
        self.taken.append(Taken(leap.start, leap.lane.name, *work, *names))
        return leap


class Arrivals:
    """Queries as they were asked."""

    def __init__(self, asked: Sequence[Ask]) -> None:
        self.asked = asked

    def first(self) -> Sequence[Ask]:
        return self.asked

    def after(self, query: Query, now: float) -> None:
        return None


def replayed(tape: Tape, octavo: Octavo, policy: Policy) -> tuple[World, dict[str, list[Taken]]]:
    """The tape's arrivals, cancellations, deadlines and step times in a simulated world, and the steps taken there."""
    truth, stations, steps = Recorded(tape.results), {}, {}
    for real in octavo.placed.lanes:
        lanes = []
        for model, limits in real.limits.items():
            watch = Stopwatch(tape.seconds[model])
            watch.lane = Lane(model, (model,), limits, watch, truth)
            watch.lane.most_repeats = 1
            lanes.append(watch.lane)
        device = Watched(real.device, lanes, steps.setdefault(real.device, []))
        stations |= {lane.name: Station(lane.name, "", [Berth(device, lane)]) for lane in lanes}
    world = World(Arrivals(tape.asked), octavo.ensemble, policy, stations, truth)
    for at, how, query in tape.ended_early:
        decide = world.council.expire if how == "_expire" else world.council.cancel
        world.at(at, lambda query=query, decide=decide: world._settling(_end_early, world, query, decide))  # type: ignore[misc]
    world.run()
    return world, steps


def _end_early(world: World, query: Query, decide: Any) -> None:
    if query in world._open:
        world._follow([(query, decide(query))])
