"""The real-time driver: a thread per device runs the steps that its schedulers propose; the council hears the results.

The order of events at the end of a step is that of the core's design page, so that a simulated driver takes the same
steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Condition, RLock, Thread
from time import monotonic

from octavo.profiles.errors import ConfigError
from octavo.runtime.alarms import Alarm, Alarms, ClockAlarms
from octavo.runtime.contents import Contents, Request, Written
from octavo.runtime.core.council import Council, Motion
from octavo.runtime.core.policies import Policy
from octavo.runtime.core.query import Answer, Candidate, Inference, Lost, Query, Score
from octavo.runtime.engine import Ended
from octavo.runtime.lane import Lane, Turn
from octavo.runtime.recorder import Recorder
from octavo.runtime.trouble import said

LOG = logging.getLogger("octavo.runtime")
PATIENCE = 10.0  # seconds that a step may still take when the loop is closed


@dataclass(frozen=True, slots=True)
class Closed:
    """How a query ended: an answer, or the reason why there is none; what its candidates wrote, and when they ended."""

    query: Query
    answer: Answer | None
    failure: str | None
    written: Mapping[Candidate, Written]
    ended: Mapping[Candidate, float]
    arrival: float
    seconds: float


@dataclass(slots=True)
class _Open:
    request: Request
    on_close: Callable[[Closed], None]
    here: set[Inference] = field(default_factory=set)  # started, and neither ended nor withdrawn from a lane
    all: list[Inference] = field(default_factory=list)
    closed: bool = False
    alarm: Alarm | None = None


class Loop:
    """Serves queries on lanes until it is closed. All methods may be called from any thread.

    Without `threads` whoever made it opens the lanes' mail and takes their turns, on a clock of his own.
    """

    def __init__(
        self,
        council: Council,
        lanes: Sequence[Lane],
        contents: Contents,
        recorder: Recorder,
        *,
        alarms: Alarms | None = None,
        threads: bool = True,
    ) -> None:
        self.council = council
        self.lanes = lanes
        self.contents = contents
        self.recorder = recorder
        self._lane_of = {model: lane for lane in lanes for model in lane.models}
        self._dead: dict[str, str] = {}
        self._open: dict[Query, _Open] = {}
        self._lock = RLock()
        self._quiet = Condition(self._lock)
        self._alarms: Alarms = alarms or ClockAlarms()
        self._closed = False
        self._threads = [
            Thread(target=self._serve, args=(lane,), name=_name(lane), daemon=True)
            for lane in (lanes if threads else ())
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dead(self) -> Mapping[str, str]:
        """Models that have died, and of what."""
        return self._dead

    def submit(
        self,
        request: Request,
        on_close: Callable[[Closed], None],
        policy: Policy | None = None,
        deadline: float | None = None,
    ) -> None:
        """Open a query. `on_close` is called once, in a thread of the loop, and must be quick.

        After `deadline` seconds the answer is chosen among what has arrived.
        """
        query = request.query
        with self._lock:
            if self._closed:
                raise ConfigError("ask: this bundle is closed; load it again")
            self.contents.open(request)
            case = self._open[query] = _Open(request, on_close)
            self.recorder.asked(query, self.recorder.now())
            self._follow(query, self._told(query, lambda: self.council.ask(query, policy)), arrival=True)
            if deadline is not None and not case.closed:
                case.alarm = self._alarms.set(deadline, lambda: self._expire(query))

    def cancel(self, query: Query) -> None:
        """Nobody waits for the answer any more; all that the query holds is freed at the next steps' ends."""
        with self._lock:
            self._follow(query, self.council.cancel(query))

    def settle(self) -> None:
        """Wait until no query is open and no lane holds anything of one."""
        with self._quiet:
            self._quiet.wait_for(lambda: not self._open)

    def close(self) -> None:
        """Cancel what is open, end the threads, free the engines. A second time changes nothing.

        An engine that hangs in a step for PATIENCE seconds is left to the end of the process.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for query, case in list(self._open.items()):
                if not case.closed:
                    self._follow(query, self.council.cancel(query, "the engine was closed"))
        self._alarms.close()
        for lane in self.lanes:
            lane.close()
        end = monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, end - monotonic()))
        hung = {thread.name for thread in self._threads if thread.is_alive()}
        for lane in self.lanes:
            if _name(lane) in hung:
                LOG.error("%s hangs in a step and is left", lane.device)
                continue
            for engine in {id(engine): engine for engine in lane.engines.values()}.values():
                engine.close()

    def deliver(self, results: Sequence[Ended]) -> None:
        """These have come from elsewhere: a lane whose models run in another process."""
        with self._lock:
            self._hear(results, self.recorder.now())

    def report(self, inference: Inference, scheduled: float | None, first_token: float | None) -> None:
        """When another process began on an inference, and when that wrote its first token, on the recorder's clock."""
        with self._lock:
            self.recorder.reported(inference, scheduled, first_token)

    def bury(self, models: Iterable[str], reason: str) -> None:
        """Whatever these models are asked for from now on is lost, until they are revived."""
        with self._lock:
            self._dead.update(dict.fromkeys(models, reason))

    def revive(self, models: Iterable[str]) -> None:
        """These models can be asked again."""
        with self._lock:
            for model in models:
                self._dead.pop(model, None)

    def _expire(self, query: Query) -> None:
        with self._lock:
            self._follow(query, self._told(query, lambda: self.council.expire(query)))

    # What the thread of a device does.

    def _serve(self, lane: Lane) -> None:
        while True:
            lane.open_mail()
            start = self.recorder.now()
            turn = lane.next_turn()
            if turn is not None:
                self.take(lane, turn, start)
            elif not lane.wait():
                return

    def take(self, lane: Lane, turn: Turn, start: float) -> None:
        """Run a step that began at `start` on the recorder's clock, and follow what comes of it."""
        step, scheduler = turn.step, turn.scheduler
        completed = [job for chunk in step.chunks if chunk.completes for job in chunk.prompt.jobs]
        if step.admitted:
            with self._lock:
                self.recorder.scheduled(step.chunks[-step.admitted :], start)
        try:
            results = turn.engine.run(step)
        except Exception as error:  # whatever kills a model costs its candidates, not the query
            self._bury(lane, turn.model, f"{turn.model} died: {said(error)}")
            return
        stopped = [job for job in map(scheduler.job, map(inference_of, results)) if job is not None]
        scheduler.commit(step, 1, stopped)
        end = self.recorder.now()
        if results or step.chunks or step.preempted:
            with self._lock:
                self.recorder.stepped(lane.device, step, completed, start, end - start)
                self._hear(results, end)
        else:
            self.recorder.stepped(lane.device, step, completed, start, end - start)

    def _hear(self, results: Sequence[Ended], at: float) -> None:
        for result in results:
            self._book(result, at)
        for result in results:
            inference = inference_of(result)
            self._follow(inference.query, self._told(inference.query, partial(self.council.hear, result)))

    def _book(self, result: Ended, at: float) -> None:
        inference = inference_of(result)
        self.recorder.ended(result, inference, at)
        self._left(inference)

    def _bury(self, lane: Lane, model: str, reason: str) -> None:
        """An engine has died: whatever its models were computing or are ever asked for is lost."""
        with self._lock:
            gone = {each for each, engine in lane.engines.items() if engine is lane.engines[model]}
            self._dead.update(dict.fromkeys(gone, reason))
            here = [each for case in self._open.values() for each in case.here if each.model in gone]
            lost = [inference for inference in here if lane.schedulers[model].withdraw(inference)]
            self._hear([Lost(inference, reason) for inference in lost], self.recorder.now())

    # What the council wants done. All of this runs under the lock.

    def _told(self, query: Query, tell: Callable[[], Motion]) -> Motion:
        """What the council wants; a policy that raises has failed its own query, and nothing else."""
        try:
            return tell()
        except Exception as error:
            LOG.exception("the policy of query %d failed", query.id)
            reason = f"its policy failed: {type(error).__name__}: {said(error)}"
            motion = self.council.cancel(query, reason)
            return motion if motion.closes else Motion(failure=reason)

    def _follow(self, query: Query, motion: Motion, *, arrival: bool = False) -> None:
        for inference in motion.withdraw:
            lane = self._lane_of[inference.model]
            lane.post(lambda lane=lane, inference=inference: self._withdraw(lane, inference))  # type: ignore[misc]
        for group in groups(motion.start):
            self._start(group, arrival=arrival)
        if motion.closes:
            self._close(query, motion)

    def _start(self, group: Sequence[Inference], *, arrival: bool) -> None:
        model, case = group[0].model, self._open[group[0].query]
        lane = self._lane_of.get(model)
        case.here.update(group)
        case.all.extend(group)
        now = self.recorder.now()
        for inference in group:
            self.recorder.started(inference, lane.device if lane else "", now)
        if lane is None or model in self._dead:
            reason = self._dead.get(model, f"no model {model!r} is loaded")
            self._hear([Lost(inference, reason) for inference in group], now)
        else:
            lane.post(lambda: self._submit(lane, group), arrival=arrival)

    def _close(self, query: Query, motion: Motion) -> None:
        case, now = self._open[query], self.recorder.now()
        case.closed = True
        if case.alarm is not None:
            self._alarms.drop(case.alarm)
        self.recorder.closed(query, now, motion.answer, motion.failure)
        arrival = self.recorder.queries[query].arrival
        arrived = motion.answer.candidates if motion.answer else ()
        written = {candidate: self.contents.written(candidate) for candidate in arrived}
        ended = {candidate: self.recorder.inferences[candidate.inference].ended or now for candidate in arrived}
        self._settle(query, case)
        try:
            case.on_close(Closed(query, motion.answer, motion.failure, written, ended, arrival, now - arrival))
        except Exception:
            LOG.exception("whoever asked query %d failed to hear how it ended", query.id)

    def _left(self, inference: Inference) -> None:
        """An inference is in no lane any more."""
        case = self._open[inference.query]
        case.here.discard(inference)
        self._settle(inference.query, case)

    def _settle(self, query: Query, case: _Open) -> None:
        """Forget a query once it is closed and no lane holds any of it."""
        if case.closed and not case.here and query in self._open:
            del self._open[query]
            self.contents.close(query)
            self.recorder.forget(query, case.all)
            if not self._open:
                self._quiet.notify_all()

    # Mail, opened by a lane's own thread between two steps.

    def _submit(self, lane: Lane, group: Sequence[Inference]) -> None:
        if self._never_begun(group):
            return
        try:
            if group[0].model in self._dead:
                raise ValueError(self._dead[group[0].model])
            lane.submit(group)
        except ValueError as error:
            with self._lock:
                self._hear([Lost(inference, str(error)) for inference in group], self.recorder.now())

    def _never_begun(self, group: Sequence[Inference]) -> bool:
        """Whether the query was closed before this mail was opened; there was nothing to withdraw then."""
        with self._lock:
            if not self._open[group[0].query].closed:
                return False
            for inference in group:
                self.recorder.withdrawn(inference, 0, self.recorder.now())
                self._left(inference)
            return True

    def _withdraw(self, lane: Lane, inference: Inference) -> None:
        try:
            written = lane.withdraw(inference)
        except Exception as error:  # the scheduler has forgotten it; its engine could not
            self._bury(lane, inference.model, f"{inference.model} died: {said(error)}")
            written = 0
        if written is not None:
            with self._lock:
                self.recorder.withdrawn(inference, written, self.recorder.now())
                self._left(inference)


def _name(lane: Lane) -> str:
    """Of its thread."""
    return f"octavo {lane.device}"


def groups(inferences: Sequence[Inference]) -> list[list[Inference]]:
    """Those that read the same prompt with the same model together: they are prefilled once."""
    found: dict[object, list[Inference]] = {}
    for inference in inferences:
        key = (inference.query, inference.model, inference.judges, inference.continues)
        found.setdefault(key, []).append(inference)
    return list(found.values())


def inference_of(result: Ended) -> Inference:
    """The inference that a result ends; scores of the experts' own heads do not come from an engine."""
    if isinstance(result, Score):
        assert result.judge is not None
        return result.judge
    return result.inference
