"""Laws of the real-time driver, on a real engine: every query closes once, nothing leaks, and steps are the core's."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo.profiles.errors import MachineError
from octavo.runtime.core.query import Inference
from octavo.runtime.core.scheduler import Limits, Scheduler
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, StepRecord
from octavo.runtime.lane import Lane
from octavo.runtime.local import Octavo
from octavo.runtime.loop import groups

PROMPTS = ["a", "mids 52917340:", "0123456789", "the quick brown fox"]


@pytest.fixture
def octavo(bundle: Path) -> Iterator[Octavo]:
    with Octavo.load(bundle, devices=["cpu:0", "cpu:1"], threads=1, keep_records=True) as loaded:
        yield loaded


def settled(octavo: Octavo) -> None:
    """Wait until all withdrawals have taken effect, then check that nothing is held anywhere."""
    deadline = time.monotonic() + 10
    while len(octavo.loop.contents) and time.monotonic() < deadline:
        time.sleep(0.002)
    assert len(octavo.loop.contents) == 0
    for lane in octavo.placed.lanes:
        for model, scheduler in lane.schedulers.items():
            assert (len(scheduler), scheduler.kv.used, lane.engines[model].held) == (0, 0, 0)  # type: ignore[attr-defined]
    books = octavo.loop.council.books
    assert books.started == books.finished + books.lost + books.withdrawn
    assert books.asked == books.answered + books.failed


def test_cancelling_anything_at_any_time_leaks_nothing_and_every_query_closes_once(octavo: Octavo) -> None:
    rng = random.Random(0)
    futures: list[Any] = []
    lock = threading.Lock()

    def client(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(12):
            policy = rng.choice(["ensemble", "early_exit", "pruned", "cascade", "majority", "single", "best_of_n"])
            deadline = rng.choice([None, None, 0.01])
            future = octavo.submit(
                rng.choice(PROMPTS), policy=policy, number=rng.randrange(99), max_new_tokens=24, deadline=deadline
            )
            with lock:
                futures.append(future)
            time.sleep(rng.random() * 0.01)

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(3)]
    for thread in clients:
        thread.start()
    while any(thread.is_alive() for thread in clients):
        with lock:
            if futures and rng.random() < 0.5:
                rng.choice(futures).cancel()
        time.sleep(0.004)
    for thread in clients:
        thread.join()
    for future in futures:
        if not future.cancelled():
            assert future.exception(timeout=30) is None or isinstance(future.exception(), MachineError)
    settled(octavo)
    assert octavo.loop.council.books.asked == len(futures) == 36
    queries = [record for record in octavo.records() if isinstance(record, QueryRecord)]
    inferences = [record for record in octavo.records() if isinstance(record, InferenceRecord)]
    assert all(query.ended is not None and query.ended >= query.arrival for query in queries)
    for record in inferences:
        times = [t for t in (record.submitted, record.scheduled, record.first_token, record.ended) if t is not None]
        assert times == sorted(times)
    written = {(r.query, r.model, r.sample) for r in inferences if not r.judge}
    assert all((r.query, r.judges, r.sample) in written for r in inferences if r.judge)
    assert sum(query.total_tokens for query in queries) == sum(record.new_tokens for record in inferences)


def test_the_loop_takes_the_steps_that_the_scheduler_proposes(octavo: Octavo) -> None:
    """Replaying what reached each lane, with the lengths that were reached, gives the steps that were taken."""
    logs = {lane.device: Log(lane) for lane in octavo.placed.lanes}
    for number in range(6):
        octavo.ask_many(PROMPTS[: 1 + number % 4], policy="early_exit", settings={"sure_at": 0.7}, seed=number)
    settled(octavo)
    recorded = [record for record in octavo.records() if isinstance(record, StepRecord)]
    for lane in octavo.placed.lanes:
        taken = [(s.decodes, s.context, s.prefill_tokens) for s in recorded if s.device == lane.device]
        assert logs[lane.device].replayed() == taken


class Log:
    """What reached a lane, in order: groups, withdrawals, and the inferences that each step stopped."""

    def __init__(self, lane: Lane) -> None:
        self.events: list[tuple[str, Any]] = []
        self.limits = {model: engine.limits for model, engine in lane.engines.items()}
        submit, withdraw, next_turn = lane.submit, lane.withdraw, lane.next_turn

        def log_submit(group: Any) -> None:
            self.events.append(("submit", group))
            submit(group)

        def log_withdraw(inference: Inference) -> Any:
            self.events.append(("withdraw", inference))
            return withdraw(inference)

        def log_turn() -> Any:
            turn = next_turn()
            if turn is not None:
                self.watch(turn)
            return turn

        lane.submit, lane.withdraw, lane.next_turn = log_submit, log_withdraw, log_turn  # type: ignore[method-assign]

    def watch(self, turn: Any) -> None:
        stopped: list[Inference] = []
        self.events.append(("step", (turn.model, stopped)))
        commit = turn.scheduler.commit

        def log_commit(step: Any, repeats: int, jobs: Any) -> None:
            stopped.extend(job.inference for job in jobs)
            del turn.scheduler.commit
            commit(step, repeats, jobs)

        turn.scheduler.commit = log_commit

    def replayed(self) -> list[tuple[int, int, int]]:
        schedulers = {model: Scheduler(limits) for model, limits in self.limits.items()}
        steps, order, turn = [], list(schedulers), 0
        for kind, what in self.events:
            if kind == "submit":
                schedulers[what[0].model].submit(what)
            elif kind == "withdraw":
                schedulers[what.model].withdraw(what)
            else:
                turns = [order[(turn + i) % len(order)] for i in range(len(order))]
                model = next(name for name in turns if schedulers[name].next_step())
                assert model == what[0]
                step = schedulers[model].next_step()
                assert step is not None
                steps.append((step.decodes, step.context, step.prefill_tokens))
                jobs = [schedulers[model].job(inference) for inference in what[1]]
                schedulers[model].commit(step, 1, [job for job in jobs if job is not None])
                turn = order.index(model) + 1
        return steps


def test_a_model_that_dies_costs_its_candidates_and_not_the_query(octavo: Octavo) -> None:
    engine = octavo.placed.lanes[0].engines["expert-0"]

    def die(step: Any) -> Any:
        raise RuntimeError("out of luck")

    engine.run = die  # type: ignore[method-assign]
    for _ in range(2):
        result = octavo.ask("abc", max_new_tokens=4)
        assert result.degraded
        assert {candidate.expert for candidate in result.candidates} == {"expert-1"}
    with pytest.raises(MachineError, match="expert-0 died: out of luck"):
        octavo.ask("abc", policy="single")


def test_a_model_of_nan_costs_its_candidates_and_not_the_query(make_bundle: Callable[..., Path]) -> None:
    with Octavo.load(make_bundle(2, broken=[1])) as octavo:
        result = octavo.ask("abc", max_new_tokens=4)
        assert result.degraded
        assert {candidate.expert for candidate in result.candidates} == {"expert-0"}


def test_after_its_deadline_a_query_is_answered_with_what_has_arrived(octavo: Octavo) -> None:
    engine = octavo.placed.lanes[1].engines["expert-1"]
    run = engine.run

    def slow(step: Any) -> Any:
        time.sleep(0.2)
        return run(step)

    engine.run = slow  # type: ignore[method-assign]
    result = octavo.ask("abc", policy="majority", max_new_tokens=4, deadline=0.1)
    assert result.degraded
    assert {candidate.expert for candidate in result.candidates} == {"expert-0"}
    assert result.seconds < 0.2
    settled(octavo)


def test_samples_that_start_together_are_one_group_and_judges_are_alone(octavo: Octavo) -> None:
    from octavo.runtime.core.query import Candidate, Ensemble, Query

    ask = Ensemble(("a", "b"), 2).ask_all(Query(0, 3, 4))
    assert [[i.model for i in group] for group in groups(ask)] == [["a", "a"], ["b", "b"]]
    judges = [Inference(ask[0].query, "v", judges=Candidate(each, 1)) for each in ask]
    assert len(groups(judges)) == 4


def test_limits_of_a_lane_are_those_of_its_engines(octavo: Octavo) -> None:
    for lane in octavo.placed.lanes:
        for scheduler in lane.schedulers.values():
            assert isinstance(scheduler.limits, Limits)
            assert not scheduler.limits.paged


def test_a_users_function_that_fails_ends_nothing(octavo: Octavo) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("mine")

    result = octavo.submit("abc", listener=fail, label=fail, verify=fail, policy="filtered", max_new_tokens=4).result()
    assert not result.degraded
    assert {candidate.label for candidate in result.candidates} == {None}
    assert not octavo.loop.dead


def test_a_policy_that_fails_has_failed_its_own_query_only(octavo: Octavo) -> None:
    """A user's generator may raise at any point, wait for nothing, ask for a model that is not there, or be none."""

    def late(panel: Any, query: Any) -> Any:
        yield panel.ask_all(query)
        raise ZeroDivisionError("mine")

    def idle(panel: Any, query: Any) -> Any:
        yield [Inference(query, "nobody")]
        yield []

    right = octavo.submit("abc", max_new_tokens=30, seed=1)
    wrong = {"its policy failed: ZeroDivisionError: mine": late, "its policy waits, and nothing runs": idle}
    wrong |= {"its policy failed: ZeroDivisionError: division": lambda panel, query: 1 / 0}
    wrong |= {"a policy is a generator": lambda panel, query: [query]}
    for message, policy in wrong.items():
        with pytest.raises(MachineError, match=message):
            octavo.ask("abc", policy=policy, max_new_tokens=4)
    assert not right.result().degraded
    settled(octavo)


def test_whoever_is_told_and_fails_ends_nothing(octavo: Octavo, caplog: pytest.LogCaptureFixture) -> None:
    """A listener of records and a client that raise are logged; the next query is right, and nothing is held."""
    right = octavo.ask("abc", max_new_tokens=4, seed=1).text
    told: list[Any] = []
    octavo.loop.recorder.listeners.extend([lambda *_: 1 / 0, lambda query, _: told.append(query)])  # type: ignore[list-item]
    assert [octavo.ask("abc", max_new_tokens=4, seed=1).text for _ in range(2)] == [right] * 2
    prepared = octavo.prepare("abc", max_new_tokens=4)
    octavo.loop.submit(prepared.request, lambda _: 1 / 0, prepared.policy)  # type: ignore[arg-type, return-value]
    assert octavo.ask("abc", max_new_tokens=4, seed=1).text == right
    settled(octavo)
    assert len(told) == 4
    assert "a listener of records failed" in caplog.text
    assert "failed to hear how it ended" in caplog.text


def test_an_engine_that_hangs_is_left_when_the_loop_is_closed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.runtime.loop.PATIENCE", 0.2)
    over = threading.Event()
    with Octavo.load(bundle, devices=["cpu:0", "cpu:1"], threads=1) as loaded:
        loaded.placed.lanes[0].engines["expert-0"].run = lambda step: [over.wait(30)][:0]  # type: ignore[method-assign, assignment, return-value]
        result = loaded.ask("abc", policy="majority", max_new_tokens=4, deadline=0.2)
        assert result.degraded
        assert {candidate.expert for candidate in result.candidates} == {"expert-1"}
    over.set()


def test_a_model_that_cannot_let_go_of_a_candidate_is_dead_and_nothing_else_is(octavo: Octavo) -> None:
    engine = octavo.placed.lanes[0].engines["expert-0"]
    run = engine.run
    engine.run = lambda step: (time.sleep(0.02), run(step))[1]  # type: ignore[method-assign]
    engine.withdraw = lambda job: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    future = octavo.submit("abc", max_new_tokens=60)
    time.sleep(0.1)
    assert future.cancel()
    result = octavo.ask("abc", max_new_tokens=4)
    assert result.degraded
    assert set(octavo.loop.dead) == {"expert-0"}
    assert len(octavo.loop.contents) == 0
