"""Laws of the scheduler: conservation, the KV ledger, repeats, and no idling, over random loads."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.runtime.core.query import Inference, Query
from octavo.runtime.core.scheduler import Job, Limits, Scheduler, Step


@dataclass
class Load:
    """Groups of inferences with hidden lengths; drives a scheduler as an engine with unit steps would."""

    scheduler: Scheduler
    lengths: dict[Inference, int] = field(default_factory=dict)
    done: list[tuple[int, int, int]] = field(default_factory=list)
    steps: list[tuple[int, int, int, int]] = field(default_factory=list)

    def submit(self, query: Query, lengths: list[int]) -> list[Inference]:
        group = [Inference(query, "m", sample) for sample in range(len(lengths))]
        self.lengths.update(zip(group, lengths, strict=True))
        self.scheduler.submit(group)
        return group

    def stopping(self, step: Step, repeats: int) -> list[Job]:
        clock = self.scheduler.clock
        rows = [job for job in step.rows if job not in step.preempted]
        ends = [job for job in rows if job.tokens_at(clock + repeats) >= self.lengths[job.inference]]
        firsts = [job for chunk in step.chunks if chunk.completes for job in chunk.prompt.jobs]
        return ends + [job for job in firsts if job.written + 1 >= self.lengths[job.inference]]

    def until_change(self, step: Step) -> int:
        clock = self.scheduler.clock
        left = (self.lengths[job.inference] - job.tokens_at(clock) for job in step.rows)
        return max(1, min(min(left, default=1), step.repeats))

    def run(self, repeats: int | None = None) -> Step | None:
        step = self.scheduler.next_step()
        if step is None:
            return None
        times = 1 if step.preempted else min(self.until_change(step), repeats or 1 << 30)
        stopped = self.stopping(step, times)
        self.steps += [
            (step.decodes, step.context + i * step.decodes, step.prefill_tokens, len(step.preempted))
            for i in range(times)
        ]
        self.scheduler.commit(step, times, stopped)
        for job in stopped:
            assert job.tokens_at(self.scheduler.clock) == self.lengths[job.inference]
            self.done.append((job.inference.query.id, job.inference.sample, self.scheduler.clock))
        return step


def random_load(seed: int, blocks: int, shares: bool, caching: bool, repeats: int | None) -> Load:
    rng = random.Random(seed)
    limits = Limits(blocks, 4, 12, 24, shares, caching, hash_tokens=8, prefill_first=rng.random() < 0.4)
    load = Load(Scheduler(limits))
    arrivals = sorted(rng.randrange(0, 200) for _ in range(25))
    open_inferences: list[Inference] = []
    for number, arrival in enumerate(arrivals):
        while load.scheduler.clock < arrival:
            if load.run(min(repeats or 1 << 30, arrival - load.scheduler.clock)) is None:
                load.scheduler.clock = arrival
            check(load.scheduler)
        prompt = rng.randint(1, 40)
        prefix = tuple(rng.choice([(1, 2, 3, 4, 5), (1, 2, 7, 8, 9), (number,) * 5])[: prompt // 8])
        query = Query(number, prompt, 30, prefix)
        samples = rng.choice([1, 2, 3, 3, 15])
        if not load.scheduler.fits(Inference(query, "m")):
            continue
        open_inferences += load.submit(query, [rng.randint(1, 30) for _ in range(samples)])
        if open_inferences and rng.random() < 0.3:
            victim = rng.choice(open_inferences)
            if load.scheduler.withdraw(victim):
                load.done.append((victim.query.id, victim.sample, -1))
        check(load.scheduler)
    while load.run(repeats) is not None:
        check(load.scheduler)
    return load


def check(scheduler: Scheduler) -> None:
    """What must hold between any two steps."""
    kv = scheduler.kv
    assert 0 <= kv.used <= kv.capacity
    assert kv.blank + sum(kv._line.values()) + kv._loose == kv.free
    assert all(blocks > 0 for blocks in kv._line.values())
    assert scheduler.context == sum(job.length_at(scheduler.clock) for job in scheduler.decoding)
    private = sum(scheduler._private_blocks(job) for job in scheduler.decoding)
    prompts = {job.prompt for job in scheduler.decoding} | set(scheduler.prefilling)
    shared = {name for prompt in prompts for name in prompt.held}
    own = sum(prompt.own_blocks for prompt in prompts)
    assert kv.used == private + own + len(shared) * scheduler._chunk_blocks


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60), st.booleans(), st.booleans())
def test_every_inference_ends_once_and_the_ledger_balances(seed: int, blocks: int, shares: bool, caching: bool) -> None:
    load = random_load(seed, blocks, shares, caching, None)
    ended = [(query, sample) for query, sample, _ in load.done]
    assert len(ended) == len(set(ended)) == len(load.lengths)
    assert load.scheduler.kv.used == 0
    assert len(load.scheduler) == 0
    assert not load.scheduler.waiting
    assert not load.scheduler.prefilling


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60), st.booleans(), st.booleans())
def test_committing_k_repeats_equals_committing_one_k_times(
    seed: int, blocks: int, shares: bool, caching: bool
) -> None:
    leaps, steps = (random_load(seed, blocks, shares, caching, repeats) for repeats in (None, 1))
    assert leaps.done == steps.done
    assert leaps.steps == steps.steps


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60))
def test_proposing_changes_nothing(seed: int, blocks: int) -> None:
    load = random_load(seed, blocks, True, True, None)
    load.submit(Query(99, 9, 9), [4, 5])
    first, second = load.scheduler.next_step(), load.scheduler.next_step()
    assert first is not None
    assert second is not None
    assert (first.decodes, first.context, first.repeats, first.admitted) == (
        second.decodes,
        second.context,
        second.repeats,
        second.admitted,
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60))
def test_where_prompts_go_first_no_step_holds_both_and_no_prompt_with_room_waits(seed: int, blocks: int) -> None:
    rng = random.Random(seed)
    load = Load(Scheduler(Limits(blocks, 4, 12, 24, prefill_first=True)))
    for number in range(12):
        load.submit(Query(number, rng.randint(1, 40), 30), [rng.randint(1, 30)])
        for _ in range(rng.randrange(4)):
            load.run(1)
            check(load.scheduler)
    while load.run():
        check(load.scheduler)
    assert len(load.done) == 12
    assert not any(decodes and prefilled for decodes, _, prefilled, _ in load.steps)


def test_samples_of_a_query_share_one_prefill() -> None:
    load = Load(Scheduler(Limits(100, 16)))
    load.submit(Query(0, 100, 10), [5, 5])
    while load.run():
        pass
    assert sum(prefill for _, _, prefill, _ in load.steps) == 100


def test_decodes_stand_still_while_a_prompt_goes_first() -> None:
    """Three steps of prompt between the fifth and the sixth token of the one that was there."""
    load = Load(Scheduler(Limits(100, 16, 8, 32, prefill_first=True)))
    load.submit(Query(0, 30, 30), [10])
    load.run()
    load.run(4)
    load.submit(Query(1, 90, 30), [5])
    for _ in range(3):
        load.run()
    assert [prefilled for _, _, prefilled, _ in load.steps] == [30, 0, 0, 0, 0, 32, 32, 26]
    assert [job.tokens_at(load.scheduler.clock) for job in load.scheduler.decoding] == [5, 1]
    load.run(1)
    assert load.steps[-1][:2] == (2, 34 + 90)


def test_a_resident_prefix_is_not_computed_again() -> None:
    load = Load(Scheduler(Limits(100, 16, hash_tokens=32)))
    for number in range(2):
        load.submit(Query(number, 100, 10, (1, 2, 3)), [5])
        while load.run():
            pass
    assert sum(prefill for _, _, prefill, _ in load.steps) == 100 + 4
    assert [load.scheduler.kv.resident(name) for name in (1, 2, 3, 4)] == [True, True, True, False]


def test_a_preempted_job_finds_its_own_blocks_again() -> None:
    """The newest is preempted when decodes run out of blocks, and computes again only what was evicted."""
    load = Load(Scheduler(Limits(10, 4, max_rows=4, max_step_tokens=16, hash_tokens=4)))
    load.submit(Query(0, 12, 20), [16])
    load.submit(Query(1, 12, 20), [16])
    while load.run():
        check(load.scheduler)
    assert sum(preempted for *_, preempted in load.steps) >= 1
    assert sum(prefill for _, _, prefill, _ in load.steps) < 24 + 28


def test_what_can_never_fit_is_refused_with_its_numbers() -> None:
    scheduler = Scheduler(Limits(10, 16))
    with pytest.raises(ValueError, match="100 prompt and 100 new tokens"):
        scheduler.submit([Inference(Query(0, 100, 100), "m")])


@pytest.mark.parametrize("limits", [Limits(40, 4, max_rows=4, max_step_tokens=64), Limits(12, 4, paged=False)])
def test_more_samples_than_fit_together_run_in_parts(limits: Limits) -> None:
    load = Load(Scheduler(limits))
    load.submit(Query(0, 12, 8), [3, 8, 1, 5, 8, 2, 7, 4, 6, 8])
    load.submit(Query(1, 5, 8), [4])
    while load.run():
        check(load.scheduler)
        assert len(load.scheduler.decoding) <= limits.max_rows
    assert sorted(sample for query, sample, _ in load.done if query == 0) == list(range(10))
    assert len(load.done) == 11
    assert load.scheduler.kv.used == 0


def test_a_batch_larger_than_its_token_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="max_step_tokens"):
        Limits(10, max_rows=64, max_step_tokens=32)


def test_nobody_waits_while_there_is_room() -> None:
    load = Load(Scheduler(Limits(1000, 16, max_rows=8, max_step_tokens=512)))
    for number in range(8):
        load.submit(Query(number, 16, 8), [8])
    load.run()
    assert not load.scheduler.waiting
