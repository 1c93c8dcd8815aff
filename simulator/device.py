"""A device (or the devices of one replica): its lanes take turns, one step each, in leaps where nothing changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from octavo.runtime.core.query import Inference
from octavo.runtime.core.trace import StepRecord
from octavo.simulator.host import Host, Phase
from octavo.simulator.lane import Lane, Leap
from octavo.simulator.pace import Paced
from octavo.simulator.timeline import Timeline

REST = 1e-3
"""Seconds without a step, after which the next takes longer where a host is shared."""
PATIENCE = 10.0
"""How many times the swap a resident model may keep the device while others wait."""


class Device:
    """Runs steps; whoever drives it says what time it is, and when it must look up because somebody came or left.

    Who comes and who leaves waits for the end of a step. `time` is when the last step ended. `skew` makes all longer.
    With `swaps` only one lane's weights are there at a time, and so many seconds bring in another's. With a `host` a
    step runs by itself, phase by phase. With a `pace`, seconds of steps are usual seconds, of which more or fewer pass.
    """

    def __init__(
        self,
        name: str,
        lanes: Sequence[Lane],
        *,
        skew: float = 1.0,
        swaps: Mapping[Lane, float] | None = None,
        steps: list[StepRecord] | None = None,
        host: Host | None = None,
        pace: Paced | None = None,
    ) -> None:
        self.name = name
        self.lanes = tuple(lanes)
        self.skew = skew
        self.pace = pace
        self.time = 0.0
        self.busy = 0.0
        self.timeline = Timeline()
        self.running: Leap | None = None
        self._leaving: list[tuple[Lane, Inference]] = []
        self._started: list[tuple[Lane, list[Inference]]] = []
        self._arrived: list[tuple[Lane, list[Inference]]] = []
        self._round: list[Leap] = []
        self._turn = 0
        self._swaps = swaps
        self._resident: Lane | None = None
        self._since = 0.0
        self._steps = steps
        self._host = host
        self._phases: list[Phase] = []

    @property
    def idle(self) -> bool:
        return self.running is None and not self._round

    @property
    def empty(self) -> bool:
        """Whether nothing is queued, running or in the mail."""
        return all(lane.queue == 0 for lane in self.lanes)

    @property
    def end(self) -> float:
        """When what runs now ends."""
        if self.running is not None:
            return self.time + self._lasts(self.time, self.running.seconds)
        return self.time + self._lasts(self.time, sum(leap.seconds for leap in self._round))

    def _lasts(self, now: float, seconds: float) -> float:
        """Seconds that pass until steps of so many seconds are done."""
        return self.skew * seconds if self.pace is None else self.pace.lasts(now, self.skew * seconds)

    def _done(self, until: float) -> float:
        """Seconds of steps since the last one ended."""
        if self.pace is None or until <= self.time:
            return (until - self.time) / self.skew
        return self.pace.done(self.time, until) / self.skew

    def begin(self, now: float) -> bool:
        """Start what comes next; False when there is nothing to do."""
        rested = now - self.time > REST
        self.time = max(self.time, now)
        if self._swaps:
            return self._begin_swapped()
        first = self._next(self._turn)
        if first is None:
            return False
        if self._host is not None:
            self._begin_phases(first, self._host, rested)
        elif len(self.lanes) > 1 and first.repeats > 1:
            self._begin_round(first)
        else:
            self.running = first
        return True

    def _begin_phases(self, leap: Leap, host: Host, rested: bool) -> None:
        leap.repeats, leap.seconds = 1, 0.0
        self.running = leap
        lane, again = leap.lane, leap.lane is self.lanes[self._turn - 1]
        results = lane.results(leap.step)
        self._phases = host.begin(self.name, lane.name, leap.step, results, rested=rested, again=again)
        self.go_on(self.time)

    def go_on(self, now: float) -> bool:
        """Begin the next phase of the step that runs; False when there is none."""
        leap = self.running
        if leap is None or not self._phases:
            return False
        assert self._host is not None
        phase = self._phases.pop(0)
        if phase.holds:
            end = self._host.take(now, lambda begin: self._lasts(begin, phase.seconds))
        else:
            end = now + self._lasts(now, phase.seconds)
        leap.seconds = self._done(end)
        return True

    def _begin_swapped(self) -> bool:
        """Stay with the weights that are there while they have work, but not long while others wait."""
        assert self._swaps
        leap = self._stay()
        if leap is None:
            leap = self._next(self._turn)
            if leap is None:
                return False
            if leap.lane is not self._resident:
                leap.delay = self._swaps[leap.lane]
                leap.seconds += leap.delay
                self._resident, self._since = leap.lane, self.time
        if self._others_wait():
            leap.shorten(self._done(self._since + PATIENCE * self._swaps[leap.lane]))
        self.running = leap
        return True

    def _stay(self) -> Leap | None:
        """What the resident does next, unless others have waited long enough."""
        assert self._swaps
        resident = self._resident
        if resident is None or not len(resident.scheduler):
            return None
        if self._others_wait() and self.time - self._since >= PATIENCE * self._swaps[resident]:
            return None
        return resident.propose()

    def _others_wait(self) -> bool:
        return any(len(lane.scheduler) for lane in self.lanes if lane is not self._resident)

    def _next(self, turn: int, skip: int = 0) -> Leap | None:
        """What the first lane that has work would do, from the one whose turn it is (and some after it) on."""
        count = len(self.lanes)
        for i in range(skip, count):
            lane = self.lanes[(turn + i) % count]
            if len(lane.scheduler) and (leap := lane.propose()) is not None:
                return leap
        return None

    def _begin_round(self, first: Leap) -> None:
        """Several lanes that only decode leap together, whole cycles at a time; with one, it leaps alone."""
        leaps = [first]
        place = (self.lanes.index(first.lane) - self._turn) % len(self.lanes)
        while leap := self._next(self._turn, place + 1):
            leaps.append(leap)
            place = (self.lanes.index(leap.lane) - self._turn) % len(self.lanes)
        cycles = min(leap.repeats for leap in leaps) - 1
        if len(leaps) == 1:
            self.running = first
        elif cycles:
            self._round = leaps
            self._cut(cycles)
        else:
            first.shorten(0.0)
            self.running = first

    def _cut(self, cycles: int) -> None:
        """Let every lane of the round run so many steps; nobody stops in them."""
        for leap in self._round:
            leap.repeats = cycles
            leap.seconds = leap.seconds_of(cycles)

    def look_up(self, now: float) -> bool:
        """Somebody came or left: stop at the first end of a step from now on. True when the end has changed."""
        if self.running is not None:
            repeats = self.running.repeats
            self.running.shorten(self._done(now))
            return self.running.repeats != repeats
        if self._round:
            self._cut_round(now)
            return True
        return False

    def _cut_round(self, now: float) -> None:
        """Book the whole cycles before now, and go on step by step from there."""
        low, high = 0, self._round[0].repeats
        elapsed = self._done(now)
        while low < high:
            middle = (low + high + 1) // 2
            if sum(leap.seconds_of(middle) for leap in self._round) < elapsed:
                low = middle
            else:
                high = middle - 1
        if low:
            self._cut(low)
            self._book_round()
        self._round = []
        self.running = self._single()
        while self.end < now:
            self._book_single()
            self.running = self._single()

    def _single(self) -> Leap:
        leap = self._next(self._turn)
        assert leap is not None
        leap.shorten(0.0)
        return leap

    def finish(self) -> Leap | None:
        """Book what has run, and return it; None after a round of leaps, in which nobody began or stopped."""
        if self._round:
            self._book_round()
            return None
        return self._book_single()

    def _book_single(self) -> Leap:
        leap = self.running
        assert leap is not None
        self.running = None
        self._note(leap)
        if self._host is not None:
            self._host.leave(self.name)
        if len(self.lanes) > 1:
            self._turn = (self.lanes.index(leap.lane) + 1) % len(self.lanes)
        leap.lane.book(leap)
        return leap

    def _book_round(self) -> None:
        for leap in self._round:
            self._note(leap)
            leap.lane.book(leap)
        self._round = []

    def _note(self, leap: Leap) -> None:
        step, seconds = leap.step, self._lasts(self.time, leap.seconds)
        leap.start = self.time
        if self._steps is not None:
            record = StepRecord(self.name, self.time, seconds, step.decodes, step.context, step.prefill_tokens)
            record.repeats, record.preempted = leap.repeats, len(step.preempted)
            self._steps.append(record)
        scheduler = leap.lane.scheduler
        held = scheduler.kv.used / scheduler.kv.capacity
        self.timeline.add(self.time, seconds, step.decodes + len(step.chunks), held, len(scheduler.waiting))
        self.time += seconds
        self.busy += seconds

    def catch_up(self, now: float) -> bool:
        """Book the steps that have ended by now and go on, so that what the lanes say is as of now.

        True when what runs then ends at another time than before.
        """
        if self.idle:
            return False
        end = self.end
        self._book_ended(now)
        if self.running is None:
            self.begin(self.time)
            if self._leaving or self._started or self._arrived:
                self.look_up(now)
        return self.end != end

    def _book_ended(self, now: float) -> None:
        """Book what has ended of a leap; what is left of it does not run then."""
        self.look_up(now)
        if self.running is not None and self.running.repeats > 1:
            self.running.drop_last()
            self._book_single()

    def lose_everything(self, now: float) -> dict[Inference, int]:
        """The device is gone: returns what its inferences had written. Its memory is empty when it is back."""
        self._book_ended(now)
        written: dict[Inference, int] = {}
        for lane in self.lanes:
            written |= lane.lose_everything()
        self.running = self._resident = None
        self._round = []
        self._turn = 0
        for box in (self._leaving, self._started, self._arrived):
            box.clear()
        return written

    # Mail, opened between two steps.

    def post(self, lane: Lane, group: list[Inference], *, arrival: bool) -> None:
        """Queue a group on a lane after the step that runs; what new queries start comes after all else."""
        (self._arrived if arrival else self._started).append((lane, group))
        lane.expected += len(group)

    def withdraw(self, lane: Lane, inference: Inference) -> None:
        self._leaving.append((lane, inference))

    def open_mail(self) -> list[tuple[Inference, int]]:
        """Withdraw who left, then queue what motions started, then what new queries did.

        Returns who left and how much they had written.
        """
        gone: list[tuple[Inference, int]] = []
        left = {inference for _, inference in self._leaving} if self._leaving else None
        if left:
            for lane, inference in self._leaving:
                job = lane.scheduler.job(inference)
                gone.append((inference, job.tokens_at(lane.scheduler.clock) if job else 0))
                lane.scheduler.withdraw(inference)
            self._leaving.clear()
        for mail in (self._started, self._arrived):
            if mail:
                for lane, group in mail:
                    lane.expected -= len(group)
                    staying = [inference for inference in group if inference not in left] if left else group
                    if staying:
                        lane.scheduler.submit(staying)
                mail.clear()
        return gone
