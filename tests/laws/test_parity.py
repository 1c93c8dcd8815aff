"""The simulator takes the steps that the driver of docs/design/core.md takes, in the same order."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import examples, plain, world

from octavo.runtime.core.council import Council, Motion
from octavo.runtime.core.query import Candidate, Inference, Query, Score
from octavo.runtime.core.scheduler import Job, Scheduler, Step
from octavo.simulator.device import Device
from octavo.simulator.latency.model import leap_seconds
from octavo.simulator.run import Prepared
from octavo.simulator.theory import Queueing
from octavo.simulator.world import Ask


class PlainDriver:
    """Rules 1 to 6 read literally, one step at a time, on a heap of events; written for this test alone."""

    def __init__(self, ready: Prepared) -> None:
        self.truth = ready.world.truth
        self.council = Council(ready.world.council.ensemble, ready.world.council.policy)
        self.devices = [device for device, _ in ready.fleet.replicas]
        self.lane_of = {
            model: (device, lane) for device in self.devices for lane in device.lanes for model in lane.models
        }
        self.schedulers = {lane: Scheduler(lane.scheduler.limits) for device in self.devices for lane in device.lanes}
        self.turn = dict.fromkeys(self.devices, 0)
        self.running: set[Device] = set()
        self.motions: dict[Device, list[tuple[str, object]]] = defaultdict(list)
        self.arrivals: dict[Device, list[list[Inference]]] = defaultdict(list)
        self.steps: dict[str, list[tuple[int, int, int, int]]] = defaultdict(list)
        self.answers: list[tuple[int, str | None]] = []
        self.events: list[tuple[float, int, object]] = []
        self.order = count()

    def run(self, asks: list[Ask]) -> None:
        waiting = deque(asks)
        while waiting or self.events:
            if waiting and (not self.events or waiting[0].at <= self.events[0][0]):
                ask = waiting.popleft()
                self.follow(ask.query, self.council.ask(ask.query), arrival=True)
                now = ask.at
            else:
                now, _, (device, lane, step) = heapq.heappop(self.events)  # type: ignore[misc]
                self.running.discard(device)
                self.end(lane, step)
            for device in self.devices:
                if device not in self.running:
                    self.begin(device, now)

    def begin(self, device: Device, now: float) -> None:
        left: set[Inference] = set()
        for verb, what in sorted(self.motions.pop(device, []), key=lambda mail: mail[0] != "withdraw"):
            if verb == "withdraw":
                left.add(what)  # type: ignore[arg-type]
                self.schedulers[self.lane_of[what.model][1]].withdraw(what)  # type: ignore[attr-defined,arg-type]
            else:
                self.submit(what, left)  # type: ignore[arg-type]
        for group in self.arrivals.pop(device, []):
            self.submit(group, left)
        for index in range(len(device.lanes)):
            place = (self.turn[device] + index) % len(device.lanes)
            lane = device.lanes[place]
            step = self.schedulers[lane].next_step()
            if step is not None:
                self.turn[device] = place + 1
                self.running.add(device)
                self.steps[device.name].append((step.decodes, step.context, step.prefill_tokens, len(step.preempted)))
                seconds = (
                    lane.latency.mixed(step.decodes, step.context, step.chunks)
                    if step.chunks
                    else leap_seconds(lane.latency, step.decodes, step.context, 1)
                )
                heapq.heappush(self.events, (now + device.skew * seconds, next(self.order), (device, lane, step)))
                return

    def submit(self, group: list[Inference], left: set[Inference]) -> None:
        staying = [inference for inference in group if inference not in left]
        if staying:
            self.schedulers[self.lane_of[staying[0].model][1]].submit(staying)

    def end(self, lane: object, step: Step) -> None:
        scheduler = self.schedulers[lane]  # type: ignore[index]
        after = scheduler.clock + step.ticks
        rows = [job for job in step.rows if job not in step.preempted]
        stopped = [job for job in rows if job.tokens_at(after) == self.truth.length(job.inference)]
        firsts = [job for chunk in step.chunks if chunk.completes for job in chunk.prompt.jobs]
        stopped += [job for job in firsts if job.written + 1 >= self.truth.length(job.inference)]
        scheduler.commit(step, 1, stopped)
        results = [self.result(job) for job in stopped]
        for result in results:
            candidate = result.candidate if isinstance(result, Score) else result
            self.follow(candidate.inference.query, self.council.hear(result))

    def result(self, job: Job) -> Candidate | Score:
        return self.truth.result(job.inference, self.truth.length(job.inference))

    def follow(self, query: Query, motion: Motion, *, arrival: bool = False) -> None:
        for inference in motion.withdraw:
            self.motions[self.lane_of[inference.model][0]].append(("withdraw", inference))
        groups: dict[object, list[Inference]] = {}
        for inference in motion.start:
            key = inference if inference.judges or inference.continues else inference.model
            groups.setdefault(key, []).append(inference)
        for group in groups.values():
            device = self.lane_of[group[0].model][0]
            if arrival:
                self.arrivals[device].append(group)
            else:
                self.motions[device].append(("start", group))
        if motion.closes:
            chosen = motion.answer.candidate.inference if motion.answer else None
            self.answers.append((query.id, f"{chosen.model}/{chosen.sample}" if chosen else None))


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 10**6))
def test_the_simulator_takes_the_steps_of_the_plain_driver(seed: int) -> None:
    ready, literal = (world(seed, of=plain(seed)) for _ in range(2))
    driver = PlainDriver(literal)
    driver.run(list(ready.world.source.first()))
    ready.world.run()
    taken: dict[str, list[tuple[int, int, int, int]]] = defaultdict(list)
    for step in ready.steps:
        for i in range(step.repeats):
            context = step.context + i * step.decodes
            taken[step.device].append((step.decodes, context, step.prefill_tokens, step.preempted))
    answered = {query.query: query.chosen for query in ready.world.queries}
    assert dict(driver.answers) == answered
    for device, steps in driver.steps.items():
        assert sorted(taken[device]) == sorted(steps)
        if sum(len(d.lanes) for d, _ in ready.fleet.replicas if d.name == device) == 1:
            assert taken[device] == steps


def test_a_single_server_serves_in_order() -> None:
    queries = Queueing(0.9).run(200, 1).queries
    ended = [query.ended for query in queries]
    assert ended == sorted(ended)
    assert queries[0].latency == pytest.approx((queries[0].ended or 0.0) - queries[0].arrival)
