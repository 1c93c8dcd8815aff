"""A lane: the models of one device, each with a scheduler and an engine, taking turns of one step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Condition

from octavo.runtime.core.query import Inference
from octavo.runtime.core.scheduler import Limits, Scheduler, Step
from octavo.runtime.engine import Engine

Mail = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """The next step of one engine; `model` is the first of those that it runs."""

    model: str
    scheduler: Scheduler
    engine: Engine
    step: Step


class Lane:
    """Only the device's own thread takes turns and opens the mail; anybody may post.

    Models that share an engine (adapters of one base) share its scheduler, and take one turn together.
    """

    def __init__(self, device: str, engines: Mapping[str, Engine]) -> None:
        self.device = device
        self.engines = dict(engines)
        first: dict[int, str] = {}
        for model, engine in engines.items():
            first.setdefault(id(engine), model)
        self._order = list(first.values())
        own = {model: Scheduler(engines[model].limits) for model in self._order}
        self.schedulers = {model: own[first[id(engine)]] for model, engine in engines.items()}
        self._next = 0
        self._motions: deque[Mail] = deque()
        self._arrivals: deque[Mail] = deque()
        self._woken = Condition()
        self._closing = False

    @property
    def models(self) -> Sequence[str]:
        """Whose inferences it takes."""
        return list(self.engines)

    @property
    def limits(self) -> Mapping[str, Limits]:
        """What the batch of each model may hold."""
        return {model: engine.limits for model, engine in self.engines.items()}

    def post(self, mail: Mail, *, arrival: bool = False) -> None:
        """Ask for something to be done between two steps; what new queries start comes after all else."""
        with self._woken:
            (self._arrivals if arrival else self._motions).append(mail)
            self._woken.notify()

    def close(self) -> None:
        """Let the thread end when it next has nothing to do."""
        with self._woken:
            self._closing = True
            self._woken.notify()

    def open_mail(self) -> None:
        for box in (self._motions, self._arrivals):
            while box:
                box.popleft()()

    def wait(self) -> bool:
        """Sleep until there is mail; False when the lane is closing instead."""
        with self._woken:
            self._woken.wait_for(lambda: self._motions or self._arrivals or self._closing)
            return not self._closing

    def next_turn(self) -> Turn | None:
        """The next step of the next model that has work, round robin."""
        for index in range(len(self._order)):
            place = (self._next + index) % len(self._order)
            model = self._order[place]
            step = self.schedulers[model].next_step()
            if step is not None:
                self._next = place + 1
                if step.chunks:
                    self.engines[model].remember(self.schedulers[model].kv.resident)
                return Turn(model, self.schedulers[model], self.engines[model], step)
        return None

    def submit(self, group: Sequence[Inference]) -> None:
        """Raises ValueError where they can never fit."""
        self.schedulers[group[0].model].submit(group)

    def withdraw(self, inference: Inference) -> int | None:
        """Forget an inference; the tokens that it has written, None where it is not here any more."""
        scheduler = self.schedulers[inference.model]
        job = scheduler.job(inference)
        if job is None:
            return None
        written = job.tokens_at(scheduler.clock)
        scheduler.withdraw(inference)
        self.engines[inference.model].withdraw(job)
        return written
