"""A lane: one model's scheduler on a device, how long its steps take, and when its rows will stop."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from octavo.runtime.core.query import Inference
from octavo.runtime.core.scheduler import Job, Limits, Scheduler, Step
from octavo.simulator.latency.model import LatencyModel, leap_seconds, leap_steps
from octavo.simulator.truth import Truth


class Lane:
    """Proposes leaps and books them. Lengths are looked up when a row begins to decode; the scheduler is never told.

    `most_repeats` is how far a leap may go: with 1 it goes step by step. `expected` inferences are still in the mail.
    `work` counts what its steps did in all.
    """

    __slots__ = (
        "_ends",
        "_order",
        "expected",
        "latency",
        "models",
        "most_repeats",
        "name",
        "scheduler",
        "truth",
        "work",
    )

    def __init__(self, name: str, models: tuple[str, ...], limits: Limits, latency: LatencyModel, truth: Truth) -> None:
        self.name = name
        self.models = models
        self.scheduler = Scheduler(limits)
        self.latency = latency
        self.truth = truth
        self.work = Tally()
        self.most_repeats = 1 << 30
        self.expected = 0
        self._ends: list[tuple[int, int, Job, int]] = []  # when rows stop, in which order, and when each had joined
        self._order = 0

    def propose(self) -> Leap | None:
        """The next step and how often it repeats until a row stops; None when there is nothing to do."""
        step = self.scheduler.next_step(min(self._until_stop(), self.most_repeats))
        if step is None:
            return None
        if step.chunks:
            return Leap(self, step, 1, self.latency.mixed(step.decodes, step.context, step.chunks))
        return Leap(self, step, step.repeats, leap_seconds(self.latency, step.decodes, step.context, step.repeats))

    def _until_stop(self) -> int:
        """Steps until the next row stops, at least one."""
        ends = self._ends
        while ends:
            end, _, job, joined = ends[0]
            if job.joined_at == joined:  # else it has left the batch since
                return end - self.scheduler.clock
            heappop(ends)
        return 1

    def results(self, step: Step) -> int:
        """How many of its rows stop, if it runs once."""
        clock = self.scheduler.clock + 1
        stopping = sum([end <= clock and job.joined_at == joined for end, _, job, joined in self._ends])
        for chunk in step.chunks:
            if chunk.completes:
                for job in chunk.prompt.jobs:
                    stopping += self.truth.length(job.inference) - job.written <= 1
        return stopping

    def book(self, leap: Leap) -> None:
        """Commit a leap, and note in it the jobs that stopped, in the order of the step, and those that began."""
        step, repeats, scheduler = leap.step, leap.repeats, self.scheduler
        clock = leap.clock = scheduler.clock + repeats * step.ticks
        stopped = leap.stopped = self._due(clock, step)
        if step.chunks:
            self._note_prompts(leap)
            for job in leap.began:
                left = self.truth.length(job.inference) - job.written - 1
                if left > 0:
                    self._order += 1
                    heappush(self._ends, (clock + left, self._order, job, clock))
                else:
                    stopped.append(job)
        self.work.add(step, repeats)
        scheduler.commit(step, repeats, stopped)

    def _note_prompts(self, leap: Leap) -> None:
        chunks = leap.step.chunks
        leap.began = [job for chunk in chunks if chunk.completes for job in chunk.prompt.jobs]
        first = len(chunks) - leap.step.admitted
        leap.admitted = [job for chunk in chunks[first:] for job in chunk.prompt.jobs]

    def _due(self, clock: int, step: Step) -> list[Job]:
        ends, due = self._ends, []
        while ends and ends[0][0] <= clock:
            _, _, job, joined = heappop(ends)
            if job.joined_at == joined and job not in step.preempted:
                due.append(job)
        return due

    def lose_everything(self) -> dict[Inference, int]:
        """Begin again with empty memory; returns what each inference had written."""
        old = self.scheduler
        self.scheduler = Scheduler(old.limits)
        self._ends.clear()
        self.expected = 0
        return {inference: job.tokens_at(old.clock) for inference, job in old.jobs()}

    def takes(self, inference: Inference) -> bool:
        return self.scheduler.fits(inference)

    @property
    def load(self) -> int:
        """Tokens that it still has to compute, as far as anybody can know: prompts, and one per row."""
        scheduler = self.scheduler
        waiting = sum(prompt.tokens for prompt in scheduler.waiting)
        under_way = sum(prompt.tokens - prompt.computed for prompt in scheduler.prefilling)
        return waiting + under_way + len(scheduler) + self.expected

    @property
    def queue(self) -> int:
        """Inferences here and in the mail."""
        return len(self.scheduler) + self.expected


NOBODY: Final[list[Job]] = []  # never changed: who booked a leap puts lists of its own there


class Leap:
    """A step about to run `repeats` times, and the seconds that takes, with `delay` seconds of loading before it.

    Afterwards it says who was admitted, began and stopped in it, and what the lane's clock then showed.
    """

    __slots__ = ("admitted", "began", "clock", "delay", "lane", "repeats", "seconds", "start", "step", "stopped")

    def __init__(self, lane: Lane, step: Step, repeats: int, seconds: float) -> None:
        self.lane = lane
        self.step = step
        self.repeats = repeats
        self.seconds = seconds
        self.start = 0.0
        self.delay = 0.0
        self.stopped = self.began = self.admitted = NOBODY
        self.clock = 0

    def seconds_of(self, repeats: int) -> float:
        return leap_seconds(self.lane.latency, self.step.decodes, self.step.context, repeats)

    def drop_last(self) -> None:
        """Leave out the last step, which does not come to its end."""
        self.repeats -= 1
        self.seconds = self.delay + self.seconds_of(self.repeats)

    def shorten(self, elapsed: float) -> None:
        """Stop at the first end of a step at or after `elapsed` seconds."""
        if self.repeats > 1:
            step = self.step
            self.repeats, seconds = leap_steps(
                self.lane.latency, step.decodes, step.context, self.repeats, elapsed - self.delay
            )
            self.seconds = self.delay + seconds


class Tally:
    """What steps did, for energy: passes, tokens, KV tokens read by decodes and pairs attended in prefills."""

    __slots__ = ("context", "pairs", "passes", "prefilled", "tokens")

    def __init__(self) -> None:
        self.passes = 0
        self.tokens = 0
        self.prefilled = 0
        self.context = 0
        self.pairs = 0.0

    def add(self, step: Step, repeats: int) -> None:
        rows = step.decodes
        self.passes += repeats
        self.tokens += rows * repeats
        self.context += step.context * repeats + rows * (repeats * (repeats - 1) // 2)
        for chunk in step.chunks:
            self.tokens += chunk.tokens
            self.prefilled += chunk.tokens
            self.pairs += chunk.tokens * chunk.start + chunk.tokens * (chunk.tokens + 1) / 2
