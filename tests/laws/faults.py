"""One schedule of faults: the real loop, council and lanes, engines that compute nothing, and a clock of its own.

A turn of a lane is proposed when it begins and taken when it ends; whatever comes between (queries, cancels, deadlines,
jumps of the clock) comes in the middle of a step, as it does where every device has a thread.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from itertools import count

import numpy as np

from octavo.runtime.alarms import Alarm
from octavo.runtime.contents import Contents, Request, Tokens
from octavo.runtime.core.council import Council
from octavo.runtime.core.policies import policy_named
from octavo.runtime.core.query import Candidate, Ensemble, Inference, Lost, Query, Score
from octavo.runtime.core.scheduler import Job, Limits, Scheduler, Step
from octavo.runtime.core.trace import InferenceRecord, QueryRecord
from octavo.runtime.engine import Ended
from octavo.runtime.lane import Lane, Turn
from octavo.runtime.loop import Closed, Loop
from octavo.runtime.recorder import Recorder

POLICIES: tuple[tuple[str, dict[str, object]], ...] = (
    ("ensemble", {}),
    ("single", {}),
    ("best_of_n", {"samples": 5}),
    ("majority", {}),
    ("weighted_vote", {}),
    ("mean_logprob", {}),
    ("filtered", {"verifier": "value"}),
    ("early_exit", {"sure_at": 0.8}),
    ("early_exit", {"by": "majority"}),
    ("cascade", {"accept_at": 0.8}),
    ("pruned", {"after_tokens": 4}),
)
FAULTS = ("none", "none", "dies", "dies in a withdrawal", "hangs", "slow", "nan", "some nan")
STEP, HANG, DEADLINES = 0.01, 30.0, (None, None, 0.02, 0.2, 1.0)  # seconds


class Died(RuntimeError):
    """What kills an engine here."""


class Stub:
    """An engine that knows from the start how long each text will be, and one way to fail from some step on."""

    def __init__(self, model: str, limits: Limits, contents: Contents, rng: random.Random, fault: str) -> None:
        self.limits = limits
        self.fault = fault
        self.dead = False
        self.rows: dict[Job, None] = {}  # that it holds memory for
        self._model, self._contents, self._rng = model, contents, rng
        self._well = rng.randrange(12)  # steps before the fault

    @property
    def held(self) -> int:
        return len(self.rows)

    @property
    def failing(self) -> bool:
        return self._well <= 0 and self.fault != "none"

    @property
    def seconds(self) -> float:
        """Of the next step."""
        usual = STEP * (0.5 + self._rng.random())
        if not self.failing:
            return usual
        return {"hangs": HANG, "slow": 10 * usual}.get(self.fault, usual)

    def remember(self, resident: Callable[[int], bool]) -> None:
        assert not self.dead

    def run(self, step: Step) -> list[Ended]:
        assert not self.dead, "a dead engine was asked"
        if self.failing and self.fault == "dies":
            self.dead = True
            raise Died(self._model)
        for job in step.preempted:
            self.rows.pop(job, None)
        gone = set(step.preempted)
        new = [job for chunk in step.chunks if chunk.completes for job in chunk.prompt.jobs]
        self.rows |= dict.fromkeys(job for chunk in step.chunks for job in chunk.prompt.jobs)
        ended = [self._ended(job) for job in [job for job in step.rows if job not in gone] + new]
        if self.failing and self.fault == "hangs":
            self.fault = "none"  # once is long enough
        self._well -= 1
        return [result for result in ended if result is not None]

    def withdraw(self, job: Job) -> None:
        if self.failing and self.fault == "dies in a withdrawal":
            self.dead = True
            raise Died(self._model)
        self.rows.pop(job, None)

    def close(self) -> None:
        self.rows.clear()

    def _ended(self, job: Job) -> Ended | None:
        inference, written = job.inference, self._written(job)
        if self.failing and (self.fault == "nan" or (self.fault == "some nan" and self._rng.random() < 0.2)):
            del self.rows[job]
            return Lost(inference, "logits are not finite")
        if inference.judges is not None:
            del self.rows[job]
            return Score(inference.judges, worth(inference.judges), inference)
        length = length_of(inference)
        if written < min(length, inference.budget):
            return None
        del self.rows[job]
        new = np.zeros(written, dtype=np.int64)
        logprob = -worth_of(inference) * written
        return self._contents.add(inference, new, logprob, ended=written == length, text=f"{length % 3}")

    def _written(self, job: Job) -> int:
        """Tokens after this step."""
        return job.tokens_at(self.clock) + 1 if job.inference.judges is None else 0

    clock = 0  # the scheduler's, before the step


class Decoder:
    def decode(self, tokens: Tokens) -> str:
        return str(len(tokens))


class Alarms:
    """Deadlines on the clock of a schedule."""

    def __init__(self, world: Schedule) -> None:
        self._world = world

    def set(self, seconds: float, call: Callable[[], None]) -> Alarm:
        alarm = Alarm(self._world.now + seconds, 0, call)
        self._world.at(alarm.at, lambda: None if alarm.call is None else alarm.call())
        return alarm

    def drop(self, alarm: Alarm) -> None:
        alarm.call = None

    def close(self) -> None:
        """Nothing rings once nobody moves the clock."""


def length_of(inference: Inference) -> int:
    """Tokens that an expert writes before it ends, whatever happens."""
    whole = random.Random(f"{inference.query.id} {inference.model} {inference.sample}").randint(1, 30)
    earlier = inference.continues
    return max(1, whole - earlier.total_tokens) if earlier else whole


def worth_of(inference: Inference) -> float:
    return random.Random(f"worth {inference.query.id} {inference.model} {inference.sample}").random()


def worth(candidate: Candidate) -> float:
    return worth_of(candidate.inference)


class Schedule:
    """Everything that one seed draws, run to its end; `check` is called after every event."""

    def __init__(self, seed: int, check: Callable[[Schedule], None]) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.closed: Counter[Query] = Counter()
        self.answers: dict[Query, Closed] = {}
        self.asked: dict[Query, str] = {}
        self.started: dict[int, set[tuple[str, int]]] = {}
        self.events = 0
        self._check = check
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number, self.ids = count(), count()
        self._busy: set[str] = set()
        self._build()
        self._draw()

    def _build(self) -> None:
        rng = self.rng
        experts = tuple(f"expert-{i}" for i in range(rng.randint(1, 3)))
        samples = rng.randint(1, 3)
        value = rng.choice(["value", "value", None])
        least = rng.randint(1, len(experts) * samples)
        self.ensemble = Ensemble(experts, samples, value, least, judge_tokens=2)
        contents = Contents(Decoder())
        limits = Limits(
            *(rng.randint(24, 60), 4, rng.choice([4, 8]), rng.choice([16, 64]), rng.random() < 0.5, True, 8, True),
            rng.random() < 0.3,
        )
        models = [*experts, "value"]
        self.engines = {
            model: Stub(model, limits, contents, random.Random(rng.random()), rng.choice(FAULTS)) for model in models
        }
        devices: dict[str, dict[str, Stub]] = {}
        for model, engine in self.engines.items():
            devices.setdefault(f"gpu:{rng.randrange(3)}", {})[model] = engine
        self.lanes = [Lane(device, engines) for device, engines in devices.items()]
        self.recorder = Recorder(keep=False, clock=lambda: self.now)
        self.recorder.listeners.append(self._hear)
        council = Council(self.ensemble, policy_named("ensemble"))
        self.loop = Loop(council, self.lanes, contents, self.recorder, alarms=Alarms(self), threads=False)

    def _hear(self, query: QueryRecord, inferences: list[InferenceRecord]) -> None:
        self.started[query.query] = {(each.model, each.sample) for each in inferences if not each.judge}
        if self.rng.random() < 0.1:
            raise RuntimeError("a listener's own")

    def _draw(self) -> None:
        rng = self.rng
        for _ in range(rng.randint(1, 10)):
            query = self._query()
            name, settings = rng.choice(POLICIES)
            arrival = rng.random() * 0.5
            self.at(arrival, self._asking(query, name, settings, rng.choice(DEADLINES)))
            if rng.random() < 0.3:
                self.at(arrival + rng.random() * 0.4, lambda query=query: self._cancel(query))  # type: ignore[misc]
        for _ in range(rng.randrange(3)):
            self.at(rng.random(), self._jump)

    def _query(self) -> Query:
        prompt = self.rng.randint(1, 40)
        shared = tuple(range(prompt // 8)) if self.rng.random() < 0.5 else ()
        return Query(next(self.ids), prompt, self.rng.randint(1, 30), shared)

    def _asking(
        self, query: Query, name: str, settings: dict[str, object], deadline: float | None
    ) -> Callable[[], None]:
        return lambda: self.ask(query, name, settings, deadline)

    def ask(self, query: Query, name: str, settings: dict[str, object], deadline: float | None = None) -> None:
        self.asked[query] = name
        policy = policy_named(name, **settings)
        request = Request(query, np.zeros(query.prompt_tokens, dtype=np.int64))
        self.loop.submit(request, self._close, policy, deadline)
        if deadline is not None:  # just after the alarm
            self.at(self.now + deadline, lambda: self._is_over(query))

    def _close(self, closed: Closed) -> None:
        self.closed[closed.query] += 1
        self.answers[closed.query] = closed
        if self.rng.random() < 0.1:
            raise RuntimeError("a client's own")

    def _cancel(self, query: Query) -> None:
        self.loop.cancel(query)
        self._is_over(query)

    def _is_over(self, query: Query) -> None:
        assert self.closed[query] == 1, f"query {query.id} is not over"

    def _jump(self) -> None:
        """The machine was asleep: whatever was due by now is late."""
        self.now += self.rng.choice([1.0, 3600.0])

    # Time.

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._number), event))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._heap:
            when, _, event = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            event()
            self._begin_turns()
            self.events += 1
            self._check(self)

    def _begin_turns(self) -> None:
        """Every lane that rests opens its mail, which may bring mail for others, and begins its next step."""
        while True:
            for lane in self._resting():
                lane.open_mail()
                turn = lane.next_turn()
                if turn is not None:
                    self._busy.add(lane.device)
                    self.at(self.now + self.engines[turn.model].seconds, self._ending(lane, turn, self.now))
            if not any(lane._motions or lane._arrivals for lane in self._resting()):
                return

    def _resting(self) -> list[Lane]:
        return [lane for lane in self.lanes if lane.device not in self._busy]

    def _ending(self, lane: Lane, turn: Turn, start: float) -> Callable[[], None]:
        def end() -> None:
            self._busy.remove(lane.device)
            self.engines[turn.model].clock = turn.scheduler.clock
            self.loop.take(lane, turn, start)

        return end

    # What the laws look at.

    def idle(self, model: str) -> bool:
        """Whether its device is between two steps."""
        return next(lane.device for lane in self.lanes if model in lane.models) not in self._busy

    def scheduler(self, model: str) -> Scheduler:
        return next(lane.schedulers[model] for lane in self.lanes if model in lane.models)
