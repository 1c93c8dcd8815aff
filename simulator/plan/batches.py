"""A light copy of continuous batching for the planner's sketches: counters instead of jobs, no preemption, no blocks.

It knows every answer's length beforehand, and prompts join whole batches by the same latency model as the simulator;
what it leaves out is why a sketch only says where to look, and the simulator decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf, sqrt

from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.latency.model import LatencyModel


@dataclass(slots=True)
class Asked:
    """Candidates of one query that share a prompt: tokens to compute, tokens found computed, answers and whose."""

    query: int
    tokens: int
    found: int
    answers: tuple[int, ...]
    columns: tuple[int, ...]
    done: int = 0
    open: int = 0


@dataclass(slots=True)
class Limits:
    """Rows of a batch, tokens of a step, tokens of keys and values."""

    rows: int
    step_tokens: int
    memory: float


Ended = tuple[float, int, int]
"""When, which query, which column."""


class Lane:
    """The batch of one model. `ended` are whole answers (or read prompts, of a judge), `first` the first tokens."""

    __slots__ = ("context", "ended", "finishing", "first", "held", "latency", "limits", "load", "queue", "rows", "step")

    def __init__(self, latency: LatencyModel, limits: Limits) -> None:
        self.latency, self.limits = latency, limits
        self.queue: deque[Asked] = deque()
        self.finishing: list[tuple[int, int, int, Asked, int]] = []
        self.rows = self.step = self.context = 0
        self.held = 0.0
        self.load = 0  # prompt tokens to read, and one per candidate: what a router knows
        self.ended: list[Ended] = []
        self.first: list[Ended] = []

    def add(self, asked: Asked) -> None:
        self.queue.append(asked)
        self.load += asked.found + asked.tokens + len(asked.answers)

    @property
    def prefills(self) -> bool:
        """Whether the next step reads a prompt: its rows and tokens must fit. A lone prompt always fits."""
        if not self.queue:
            return False
        head, limits = self.queue[0], self.limits
        if head.done or not self.rows:
            return True
        rows = self.rows + max(1, len(head.answers))
        return rows <= limits.rows and self.held + head.found + head.tokens <= limits.memory

    def mixed(self, now: float) -> float:
        """A step that reads prompts beside the rows; returns when it ends."""
        limits, rows = self.limits, self.rows
        budget, taken = limits.step_tokens - rows, rows
        chunks: list[Chunk] = []
        whole: list[Asked] = []
        held = self.held
        while self.queue and budget > 0:
            head = self.queue[0]
            if not head.done:
                taken += max(1, len(head.answers))
                held += head.found + head.tokens
                if chunks and (taken > limits.rows or held > limits.memory):
                    break
            tokens = min(budget, head.tokens - head.done)
            start = head.found + head.done
            chunks.append(Chunk(Prompt(0, head.found + head.tokens, ()), start, tokens))
            if not head.done:
                self.held += head.found + head.tokens
            head.done += tokens
            budget -= tokens
            if head.done < head.tokens:
                break
            self.load -= head.found + head.tokens
            whole.append(self.queue.popleft())
        end = now + self.latency.mixed(rows, self.context, chunks)
        self.forward(1, end)
        for asked in whole:
            self._join(asked, end)
        return end

    def _join(self, asked: Asked, now: float) -> None:
        """A prompt is read: its first tokens are there; a judge has its score."""
        length = asked.found + asked.tokens
        if not asked.answers:
            self.held -= length
            self.ended.append((now, asked.query, asked.columns[0]))
            return
        asked.open = len(asked.answers)
        for new, column in zip(asked.answers, asked.columns, strict=True):
            self.first.append((now, asked.query, column))
            if new <= 1:
                self._leave(asked, now, column)
                continue
            self.rows += 1
            self.context += length + 1
            self.held += 1
            heappush(self.finishing, (self.step + new - 1, asked.query, column, asked, new))

    def _leave(self, asked: Asked, now: float, column: int) -> None:
        asked.open -= 1
        self.load -= 1
        if not asked.open:
            self.held -= asked.found + asked.tokens
        self.ended.append((now, asked.query, column))

    def decode(self, now: float, time: float, *, stops: bool) -> float:
        """Steps without prompts until this time, until a prompt can be read, or (`stops`) until an answer is whole.

        `Engine` has the same for several lanes; this is where a sketch's time goes, so it calls little.
        """
        finishing, line_of, ended = self.finishing, self.latency.decode, self.ended
        rows, step, context, held = self.rows, self.step, self.context, self.held
        while rows and now < time:
            line = line_of(rows, context)
            seconds, growth = line.seconds, line.slope * rows
            steps = finishing[0][0] - step
            whole = steps * seconds + growth * steps * (steps - 1) / 2
            if whole > time - now:
                steps = min(steps, _steps(seconds, growth, time - now))
                whole = steps * seconds + growth * steps * (steps - 1) / 2
            now += whole
            step += steps
            context += steps * rows
            held += steps * rows
            if finishing[0][0] > step:
                break  # the time has come
            while finishing and finishing[0][0] <= step:
                _, query, column, asked, new = heappop(finishing)
                length = asked.found + asked.tokens
                rows -= 1
                context -= length + new
                held -= new
                asked.open -= 1
                if not asked.open:
                    held -= length
                self.load -= 1
                ended.append((now, query, column))
            if stops or self.queue:
                break
        self.rows, self.step, self.context, self.held = rows, step, context, held
        return now

    def forward(self, steps: int, now: float) -> None:
        """The rows have written so many tokens each; those whose answer is whole leave."""
        self.step += steps
        self.context += steps * self.rows
        self.held += steps * self.rows
        while self.finishing and self.finishing[0][0] <= self.step:
            _, _, column, asked, new = heappop(self.finishing)
            self.rows -= 1
            self.context -= asked.found + asked.tokens + new
            self.held -= new
            self._leave(asked, now, column)


def _steps(seconds: float, growth: float, left: float) -> int:
    """The step that ends after so many seconds, where the first takes `seconds` and each `growth` more."""
    half = growth / 2
    linear = seconds - half
    root = left / seconds if half * left < 1e-12 else (sqrt(linear * linear + 4 * half * left) - linear) / growth
    return max(1, int(root) + 1)


class Engine:
    """The lanes of one replica, which take turns. `judged` is told of answers as soon as they are whole."""

    def __init__(self, lanes: Sequence[Lane], judged: Callable[[Ended], None] | None = None) -> None:
        self.lanes = lanes
        self.judged = judged
        self.now = self.busy = 0.0
        self._heard = [0] * len(lanes)

    def until(self, time: float) -> None:
        """Go on to the first end of a step at or after this time, or to the time where there is nothing to do."""
        while self.now < time:
            active = [lane for lane in self.lanes if lane.rows or lane.queue]
            if not active:
                self.now = time
                return
            before = self.now
            if any(lane.prefills for lane in active):
                for lane in active:
                    self._one(lane)
            elif len(active) == 1:
                self.now = active[0].decode(self.now, time, stops=self.judged is not None)
            else:
                self._many(active, time)
            self.busy += self.now - before
            if self.judged:
                self._tell(self.judged)

    def _tell(self, judged: Callable[[Ended], None]) -> None:
        """Of what has ended since, but for the last lane's, which is the judge's."""
        for number, lane in enumerate(self.lanes[:-1]):
            while self._heard[number] < len(lane.ended):
                judged(lane.ended[self._heard[number]])
                self._heard[number] += 1

    def _one(self, lane: Lane) -> None:
        if lane.prefills:
            self.now = lane.mixed(self.now)
        elif lane.rows:
            self.now += lane.latency.decode(lane.rows, lane.context).seconds
            lane.forward(1, self.now)

    def _many(self, active: Sequence[Lane], time: float) -> None:
        """Decode until the first answer is whole, or until the step in which the time comes."""
        steps, seconds, growth = 1 << 30, 0.0, 0.0
        for lane in active:
            line = lane.latency.decode(lane.rows, lane.context)
            seconds += line.seconds
            growth += line.slope * lane.rows
            steps = min(steps, lane.finishing[0][0] - lane.step)
        whole = steps * seconds + growth * steps * (steps - 1) / 2
        if whole > time - self.now and time < inf:
            steps = min(steps, _steps(seconds, growth, time - self.now))
            whole = steps * seconds + growth * steps * (steps - 1) / 2
        self.now += whole
        for lane in active:
            lane.forward(steps, self.now)


class Reader:
    """A device that only reads prompts, first come, first served: as many a step as fit."""

    __slots__ = ("_alone", "busy", "end", "latency", "load", "next", "read", "step_tokens", "waiting")

    def __init__(self, latency: LatencyModel, step_tokens: int, alone: dict[tuple[int, int], float]) -> None:
        self.latency, self.step_tokens = latency, step_tokens
        self.end = self.busy = 0.0
        self.next = inf  # when the next step begins
        self.load = 0
        self.waiting: deque[tuple[float, int, int, int]] = deque()
        self.read: list[tuple[float, int]] = []
        self._alone = alone

    def add(self, time: float, tokens: int, found: int, index: int) -> None:
        if not self.waiting:
            self.next = max(self.end, time)
        self.waiting.append((time, tokens, found, index))
        self.load += tokens + found + 1

    def until(self, time: float) -> None:
        """Begin every step that begins before this time. Those who come at one moment are read together."""
        waiting = self.waiting
        while self.next < time:
            start = self.next
            batch = [waiting.popleft()]
            budget = self.step_tokens - batch[0][1]
            while waiting and waiting[0][0] <= start and waiting[0][1] <= budget:
                batch.append(waiting.popleft())
                budget -= batch[-1][1]
            seconds = self._seconds(batch)
            self.busy += seconds
            self.end = start + seconds
            self.next = max(self.end, waiting[0][0]) if waiting else inf
            for _, tokens, found, index in batch:
                self.load -= tokens + found + 1
                self.read.append((self.end, index))

    def _seconds(self, batch: Sequence[tuple[float, int, int, int]]) -> float:
        """A long prompt takes several steps; here it is one of as many tokens."""
        if len(batch) > 1:
            return self.latency.mixed(0, 0, [_whole(tokens, found) for _, tokens, found, _ in batch])
        _, tokens, found, _ = batch[0]
        seconds = self._alone.get((tokens, found))
        if seconds is None:
            seconds = self._alone[tokens, found] = self.latency.mixed(0, 0, (_whole(tokens, found),))
        return seconds


def _whole(tokens: int, found: int) -> Chunk:
    return Chunk(Prompt(0, tokens + found, ()), found, tokens)
