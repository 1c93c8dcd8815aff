"""The world: drives the core's council and schedulers on SimPy's clock, by the rules of docs/design/core.md.

One event per arrival, message and end of a leap. What is decided, the core decides; the world knows the time, the
devices and what is hidden: how long answers are and whether they are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Final, Protocol

import simpy

from octavo.runtime.core.council import NOTHING, Council, Motion
from octavo.runtime.core.policies import Policy
from octavo.runtime.core.query import Candidate, Ensemble, Inference, Lost, Query, Score
from octavo.runtime.core.trace import End, InferenceRecord, QueryRecord
from octavo.simulator.device import Device
from octavo.simulator.host import Host
from octavo.simulator.lane import Leap
from octavo.simulator.network import CLIENT, Network
from octavo.simulator.station import Berth, Station
from octavo.simulator.truth import Truth


@dataclass(slots=True, eq=False, init=False)
class Ask:
    """A query and when its client sends it."""

    at: Final[float]
    query: Final[Query]

    def __init__(self, at: float, query: Query) -> None:
        self.at = at
        self.query = query


class Source(Protocol):
    """Where queries come from. A closed loop asks again when an answer is there."""

    def first(self) -> Iterable[Ask]:
        """In order of time; may be lazy."""

    def after(self, query: Query, now: float) -> Ask | None:
        """What the client that has just been answered asks next, if it does."""


class _Case:
    """What the world keeps of an open query."""

    __slots__ = ("landed", "record")

    def __init__(self, record: QueryRecord) -> None:
        self.record = record
        self.landed: list[float] = []


class _Run:
    """An inference under way: its record and its query's, and where it is (nowhere while a message travels)."""

    __slots__ = ("attempts", "berth", "query", "record")

    def __init__(self, record: InferenceRecord, query: QueryRecord) -> None:
        self.record = record
        self.query = query
        self.berth: Berth | None = None
        self.attempts = 1


class World:
    """One run. `home` is the tier where the council sits.

    `overhead` are host seconds before an inference is queued, `closing` those between a decision and its answer.
    A prompt that leaves no room in `context` tokens is rejected. `keep` is told of each inference that has ended.
    A `host` that the devices share opens the queries as well.
    """

    def __init__(
        self,
        source: Source,
        ensemble: Ensemble,
        policy: Policy,
        stations: Mapping[str, Station],
        truth: Truth,
        *,
        network: Network | None = None,
        home: str = "",
        deadline: float | None = None,
        overhead: float = 0.0,
        closing: float = 0.0,
        context: int | None = None,
        keep: Callable[[InferenceRecord], None] | None = None,
        host: Host | None = None,
    ) -> None:
        self.env = simpy.Environment()
        self.council = Council(ensemble, policy)
        self.stations = dict(stations)
        self.truth = truth
        self.network = network or Network()
        self.home = home
        self.deadline = deadline
        self.overhead = overhead
        self.closing = closing
        self.context = context
        self.host = host
        self.queries: list[QueryRecord] = []
        self.inferences: list[InferenceRecord] = []
        self.keep = keep or self.inferences.append
        self.devices = list({id(b.device): b.device for s in self.stations.values() for b in s.berths}.values())
        self.source = source
        self._asks: Iterator[Ask] = iter(source.first())
        self._next: Ask | None = next(self._asks, None)
        self._open: dict[Query, _Case] = {}
        self._runs: dict[Inference, _Run] = {}
        self._alarms: dict[Device, int] = {}
        self._woken: dict[Device, None] = {}
        self._sent: dict[float, list[tuple[list[Inference], Station, bool]]] = {}
        self._unfinished = 0
        self.set_up()

    def set_up(self) -> None:
        """For a world with another clock: what it needs before it runs."""

    @property
    def now(self) -> float:
        return float(self.env.now)

    def run(self) -> None:
        """Until every query is closed and every device is done; what else may happen no longer matters."""
        self._expect()
        while self.env.peek() < inf and not self._done():
            self.env.step()

    def _done(self) -> bool:
        if self._next is not None or self._unfinished:
            return False
        return not self._runs and all(device.idle for device in self.devices)

    def at(self, time: float, happens: Callable[[], None]) -> None:
        """Let something happen at a time; at once, when that is now."""
        if time <= self.now:
            happens()
            return
        event = self.env.timeout(time - self.now)
        event.callbacks.append(lambda _: happens())

    # Queries.

    def _expect(self) -> None:
        """Wait for the next arrival."""
        if self._next is not None:
            event = self.env.timeout(max(0.0, self._next.at - self.now))
            event.callbacks.append(lambda _: self._arrive())

    def _arrive(self) -> None:
        now = self.now
        while self._next is not None and self._next.at <= now:
            self.ask(self._next)
            self._next = next(self._asks, None)
        self._settle()
        self._expect()

    def ask(self, ask: Ask) -> None:
        """A client sends a query; it reaches the council a message later."""
        query = ask.query
        self._unfinished += 1
        record = QueryRecord(query.id, ask.at, query.prompt_tokens, max_new_tokens=query.max_new_tokens)
        record.prefix = query.prefix
        self.queries.append(record)
        if self.context is not None and query.prompt_tokens >= self.context:
            record.outcome, record.ended = "rejected", ask.at
            record.reason = f"a prompt of {query.prompt_tokens} tokens leaves no room in {self.context}"
            self._unfinished -= 1
            return
        self._reach(self.network.arrival(ask.at, CLIENT, self.home, query.prompt_tokens), query, record)

    def _reach(self, there: float, query: Query, record: QueryRecord) -> None:
        """Let a query be before the council at a time."""
        if there <= self.now:
            self._read(query, record)
        else:
            self.at(there, lambda: self._settling(self._read, query, record))

    def _read(self, query: Query, record: QueryRecord) -> None:
        if self.host is None:
            self._open_case(query, record)
        else:
            read = self.host.open(self.now)
            self.at(read, lambda: self._settling(self._open_case, query, record))

    def _ask_again(self, ask: Ask) -> None:
        self._unfinished -= 1
        self.ask(ask)

    def _open_case(self, query: Query, record: QueryRecord) -> None:
        self._open[query] = _Case(record)
        if self.deadline is not None:
            self.at(self.now + self.deadline, lambda: self._settling(self._expire, query))
        self._follow([(query, self.council.ask(query))], arrival=True)

    def _expire(self, query: Query) -> None:
        if query in self._open:
            self._follow([(query, self.council.expire(query))])

    def _settling(self, happens: Callable[..., None], *arguments: object) -> None:
        happens(*arguments)
        self._settle()

    # Motions.

    def _follow(self, motions: list[tuple[Query, Motion]], *, arrival: bool = False) -> None:
        """Withdraw, then start, then close, for all that was heard at one moment."""
        for _, motion in motions:
            for inference in motion.withdraw:
                self._withdraw(inference)
        for query, motion in motions:
            if len(motion.start) == 1:
                self._start(motion.start, arrival)
            elif motion.start:
                for group in _by_model(motion.start):
                    self._start(group, arrival)
            if motion.closes:
                self._close(query, motion)

    def _start(self, group: list[Inference], arrival: bool) -> None:
        first, now = group[0], self.now
        query = self._open[first.query].record
        for inference in group:
            judged, prompt = inference.judges, inference.prompt_tokens
            record = InferenceRecord(
                query.query, inference.model, inference.sample, judged is not None, "", prompt, 0, now
            )
            if judged is not None:
                record.judges = judged.inference.model
            self._runs[inference] = _Run(record, query)
        station = self.stations.get(first.model)
        if station is None:
            self._verify(group)
            return
        there = self.network.arrival(now, self.home, station.tier, first.prompt_tokens) + self.overhead
        self._send(there, group, station, arrival)

    def _verify(self, group: list[Inference]) -> None:
        verifying = self.truth.seconds_to_verify(group[0])
        assert verifying is not None, f"nobody runs {group[0].model}"
        self.at(self.now + verifying, lambda: self._settling(self._verified, group))

    def _send(self, there: float, group: list[Inference], station: Station, arrival: bool) -> None:
        """Let a group be queued at a time; what is to be queued at one time is queued together."""
        if there <= self.now:
            self._submit(group, station, arrival)
        elif there in self._sent:
            self._sent[there].append((group, station, arrival))
        else:
            self._sent[there] = [(group, station, arrival)]
            self.at(there, lambda: self._settling(self._receive, there))

    def _receive(self, there: float) -> None:
        for group, station, arrival in self._sent.pop(there):
            self._submit(group, station, arrival)

    def _submit(self, group: list[Inference], station: Station, arrival: bool) -> None:
        """Queue a group on a lane; lost when no lane can ever hold it."""
        group = [inference for inference in group if inference in self._runs]
        if not group:
            return
        if station.routing == "prefix_affine":
            self.catch_up(berth.device for berth in station.berths)
        berth = station.pick(group)
        if berth is None:
            if station.holds(group):
                station.waiting.append((group, arrival))
            else:
                self._lose(group, station.obstacle(group))
            return
        for inference in group:
            run = self._runs[inference]
            run.berth = berth
            run.record.device = berth.device.name
        berth.device.post(berth.lane, group, arrival=arrival)
        self._woken[berth.device] = None

    def _lose(self, group: Sequence[Inference], reason: str, written: Mapping[Inference, int] | None = None) -> None:
        heard = []
        for inference in group:
            open_ = inference.query in self._open
            end: End = "lost" if open_ else "withdrawn"
            self._end(inference, self._runs[inference], end, (written or {}).get(inference, 0))
            heard.append((inference.query, self.council.hear(Lost(inference, reason))))
        self._follow(heard)

    # Devices that come and go.

    def close_berths(self, device: Device) -> None:
        """Let the device take no new work."""
        for berth in self._berths_of(device):
            berth.open = False

    def open_berths(self, device: Device) -> None:
        """Let the device take work, first of all what waits for somebody to be there."""
        for station in self.stations.values():
            if any(berth.device is device for berth in station.berths):
                for berth in station.berths:
                    berth.open |= berth.device is device
                waiting, station.waiting = station.waiting, []
                for group, arrival in waiting:
                    self._submit(group, station, arrival)
        self._settle()

    def catch_up(self, devices: Iterable[Device]) -> None:
        """Let what the devices' lanes say of their memory be as of now."""
        for device in devices:
            if device.catch_up(self.now):
                self._set_alarm(device)

    def add(self, devices: Iterable[Device]) -> None:
        """Devices that came while it ran; their berths are at their stations already."""
        self.devices.extend(devices)

    def _berths_of(self, device: Device) -> list[Berth]:
        return [b for station in self.stations.values() for b in station.berths if b.device is device]

    def kill(self, device: Device, retries: int, reason: str) -> None:
        """The device loses all that it holds. What it was doing starts again elsewhere, at most `retries` times."""
        self.close_berths(device)
        held = [inference for inference, run in self._runs.items() if run.berth and run.berth.device is device]
        written = device.lose_everything(self.now)
        self._alarms[device] = self._alarms.get(device, 0) + 1
        self._woken.pop(device, None)
        lost = []
        for inference in held:
            run = self._runs[inference]
            tokens = written.get(inference, 0)
            if run.attempts > retries or inference.query not in self._open:
                lost.append((inference, tokens))
                continue
            run.query.total_tokens += tokens
            run.query.wasted_tokens += tokens
            run.attempts += 1
            run.berth = run.record.scheduled = run.record.first_token = None
        for group in _by_query(inference for inference in held if inference not in dict(lost)):
            self._submit(group, self.stations[group[0].model], arrival=False)
        self._lose([inference for inference, _ in lost], reason, dict(lost))
        self._settle()

    def _verified(self, group: Sequence[Inference]) -> None:
        near: list[Candidate | Score] = []
        for inference in group:
            if inference in self._runs:
                self._bring(inference, 0, near)
        self._tell(near)

    def _withdraw(self, inference: Inference) -> None:
        run = self._runs.get(inference)
        if run is None:
            return
        if run.berth is None:
            self._end(inference, run, "withdrawn", 0)
            return
        device = run.berth.device
        device.withdraw(run.berth.lane, inference)
        self._woken[device] = None

    # Devices.

    def _settle(self) -> None:
        """After all that happens at one moment: idle devices begin, busy ones look up."""
        while self._woken:
            device, _ = self._woken.popitem()
            if device.idle:
                self._begin(device)
            elif device.look_up(self.now):
                self._set_alarm(device)

    def _begin(self, device: Device) -> None:
        for inference, written in device.open_mail():
            run = self._runs.get(inference)
            if run is not None:
                self._end(inference, run, "withdrawn", written)
        if device.begin(self.now):
            self._set_alarm(device)

    def _set_alarm(self, device: Device) -> None:
        """Wake when the device's leap ends; an alarm set before is ignored."""
        number = self._alarms[device] = self._alarms.get(device, 0) + 1
        event = self.env.timeout(max(0.0, device.end - self.now))
        event.callbacks.append(lambda _: self._ring(device, number))

    def _ring(self, device: Device, number: int) -> None:
        if self._alarms[device] != number:
            return
        if device.go_on(self.now):
            self._set_alarm(device)
            return
        leap = device.finish()
        if leap is not None:
            self._hear(leap)
        self._woken.pop(device, None)
        self._begin(device)
        self._settle()

    def _hear(self, leap: Leap) -> None:
        """Write down what has happened in a leap, and carry what its stopped jobs bring to the council."""
        self._note(leap)
        if leap.stopped:
            near: list[Candidate | Score] = []
            for job in leap.stopped:
                self._bring(job.inference, job.tokens_at(leap.clock), near)
            self._tell(near)

    def _note(self, leap: Leap) -> None:
        """Who was admitted, who was preempted, and who wrote a first token."""
        runs, now = self._runs, self.now
        for job in leap.admitted:
            run = runs.get(job.inference)
            if run is not None and run.record.scheduled is None:
                run.record.scheduled = leap.start
        for job in leap.step.preempted:
            if job.inference in runs:
                runs[job.inference].record.preemptions += 1
        for job in leap.began:
            run = runs.get(job.inference)
            if run is not None and run.record.first_token is None:
                run.record.first_token = now

    def _bring(self, inference: Inference, new_tokens: int, near: list[Candidate | Score]) -> None:
        """What a stopped inference brings is written down, and is `near` the council, or a message away."""
        result, run, now = self.truth.result(inference, new_tokens), self._runs[inference], self.now
        record, tokens = run.record, 0
        if isinstance(result, Score):
            record.value = result.value
        else:
            tokens = result.new_tokens
            record.value, record.mean_logprob, record.answer = result.value, result.mean_logprob, result.answer
            record.correct = self.truth.correct(result)
        self._end(inference, run, "finished", tokens)
        tier = self.home if run.berth is None else self.stations[inference.model].tier
        there = self.network.arrival(now, tier, self.home, tokens)
        if there <= now:
            near.append(result)
        else:
            self._tell_at(there, result)

    def _tell_at(self, there: float, result: Candidate | Score) -> None:
        self.at(there, lambda: self._settling(self._tell, [result]))

    def _tell(self, results: list[Candidate | Score]) -> None:
        motions: list[tuple[Query, Motion]] = []
        for result in results:
            if isinstance(result, Candidate):
                query = result.inference.query
                case = self._open.get(query)
                if case is not None:
                    case.landed.append(self.now)
                    case.record.candidates += 1
            else:
                query = result.candidate.inference.query
            motion = self.council.hear(result)
            if motion is not NOTHING:
                motions.append((query, motion))
        self._follow(motions)

    # Records.

    def _end(self, inference: Inference, run: _Run, end: End, written: int) -> None:
        del self._runs[inference]
        record, query = run.record, run.query
        record.ended, record.end, record.new_tokens = self.now, end, written
        query.total_tokens += written
        if end != "finished":
            query.wasted_tokens += written
        first = record.first_token
        if first is not None and not record.judge and (query.first_token is None or first < query.first_token):
            query.first_token = first
        self.keep(record)

    def _close(self, query: Query, motion: Motion) -> None:
        case = self._open.pop(query)
        record, answer = case.record, motion.answer
        there = self.network.arrival(self.now, self.home, CLIENT, answer.candidate.total_tokens if answer else 0)
        record.ended = there = there + self.closing
        if case.landed:
            record.barrier_wait = case.landed[-1] - median(case.landed)
        if answer is None:
            record.outcome, record.reason = "failed", motion.failure or ""
        else:
            chosen = answer.candidate
            record.reason, record.degraded = answer.reason, answer.degraded
            record.answer_tokens = chosen.total_tokens
            record.chosen = f"{chosen.inference.model}/{chosen.inference.sample}"
            record.value = next((s.value for s in answer.scores if s.candidate is chosen), None)
            record.correct = self.truth.correct(chosen)
        self._unfinished -= 1
        again = self.source.after(query, there)
        if again is not None:
            self._unfinished += 1
            self.at(again.at, lambda: self._settling(self._ask_again, again))


def _by_model(inferences: list[Inference]) -> Iterable[list[Inference]]:
    """Groups that share a prompt: samples of one model that start together. Judges read different candidates."""
    groups: dict[object, list[Inference]] = {}
    for inference in inferences:
        alone = inference.judges or inference.continues
        groups.setdefault(inference if alone else inference.model, []).append(inference)
    return groups.values()


def _by_query(inferences: Iterable[Inference]) -> Iterator[list[Inference]]:
    """The groups of several queries."""
    queries: dict[Query, list[Inference]] = {}
    for inference in inferences:
        queries.setdefault(inference.query, []).append(inference)
    for asked in queries.values():
        yield from _by_model(asked)
