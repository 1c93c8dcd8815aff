"""Laws of the runtime under faults: what they must hold after every event, over random schedules of virtual time."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from faults import Schedule, worth
from worlds import examples

from octavo.runtime.core.query import Query
from octavo.runtime.core.scheduler import Scheduler


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Listeners and clients fail on purpose here."""
    logger = logging.getLogger("octavo.runtime")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


@pytest.mark.parametrize("hundred", range(-(-examples(100) // 100)))
def test_whatever_fails_whenever_every_query_ends_once_nothing_leaks_and_the_next_is_right(hundred: int) -> None:
    for seed in range(100 * hundred, 100 * hundred + 100):
        try:
            schedule = Schedule(seed, laws)
            schedule.run()
            all_is_over(schedule)
            the_next_is_right(schedule)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def laws(schedule: Schedule) -> None:
    """What holds after every event."""
    loop, council = schedule.loop, schedule.loop.council
    books = council.books
    assert books.asked == len(schedule.asked) == books.answered + books.failed + council.open
    assert books.started == books.finished + books.lost + books.withdrawn + council.running
    assert all(times == 1 for times in schedule.closed.values())
    assert len(schedule.closed) == books.answered + books.failed
    assert len(loop.contents) >= council.open
    for model, engine in schedule.engines.items():
        scheduler = schedule.scheduler(model)
        the_ledger_balances(scheduler)
        if schedule.idle(model) and not engine.dead:
            here = {*scheduler.decoding, *(job for prompt in scheduler.prefilling for job in prompt.jobs)}
            assert set(engine.rows) == here, f"{model} holds what its scheduler does not"
        if engine.dead:
            assert model in loop.dead


def the_ledger_balances(scheduler: Scheduler) -> None:
    kv = scheduler.kv
    assert 0 <= kv.used <= kv.capacity
    assert kv.blank + sum(kv._line.values()) + kv._loose == kv.free
    assert scheduler.context == sum(job.length_at(scheduler.clock) for job in scheduler.decoding)
    prompts = {job.prompt for job in scheduler.decoding} | set(scheduler.prefilling)
    shared = {name for prompt in prompts for name in prompt.held}
    private = sum(scheduler._private_blocks(job) for job in scheduler.decoding)
    own = sum(prompt.own_blocks for prompt in prompts)
    assert kv.used == private + own + len(shared) * scheduler._chunk_blocks


def all_is_over(schedule: Schedule) -> None:
    loop = schedule.loop
    assert set(schedule.closed) == set(schedule.asked)
    assert (loop.council.open, loop.council.running, len(loop.contents)) == (0, 0, 0)
    assert not loop.recorder.queries
    assert not loop.recorder.inferences
    for model, engine in schedule.engines.items():
        scheduler = schedule.scheduler(model)
        assert (len(scheduler), scheduler.kv.used) == (0, 0)
        assert engine.dead or engine.held == 0
    for query, name in schedule.asked.items():
        enough(schedule, query, name)


def enough(schedule: Schedule, query: Query, policy: str) -> None:
    """An answer is chosen among as many as are demanded, or all that were asked; pruning drops some on purpose."""
    answer, failure = schedule.answers[query].answer, schedule.answers[query].failure
    assert (answer is None) != (failure is None)
    if answer is not None:
        assert answer.candidate in answer.candidates
        if policy != "pruned":
            asked = len(schedule.started[query.id])
            assert len(answer.candidates) >= min(schedule.ensemble.min_candidates, asked)


def the_next_is_right(schedule: Schedule) -> None:
    """Those that live bring every candidate; the best by what the value model says, or the likeliest, is chosen."""
    for engine in schedule.engines.values():
        engine.fault = "none"
    panel, dead = schedule.ensemble, schedule.loop.dead
    query = Query(next(schedule.ids), 5, 10)
    schedule.at(schedule.now, lambda: schedule.ask(query, "ensemble", {}))
    schedule.run()
    all_is_over(schedule)
    living = {
        (name, sample) for name in panel.experts if name not in dead for sample in range(panel.samples_per_expert)
    }
    answer = schedule.answers[query].answer
    if len(living) < panel.min_candidates:
        assert answer is None
        return
    assert answer is not None
    assert {(each.inference.model, each.inference.sample) for each in answer.candidates} == living
    judged = panel.value_model is not None and panel.value_model not in dead
    best = max(answer.candidates, key=lambda each: worth(each) if judged else each.mean_logprob)
    assert answer.candidate is best
    hurt = {*panel.experts, *([panel.value_model] if panel.value_model else [])} & set(dead)
    assert answer.degraded == bool(hurt)
