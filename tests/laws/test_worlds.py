"""Laws of every run, over random scenarios: conservation, causality, determinism, leaps, cost and energy."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import POLICIES, examples, feed_forward, scenario, world

from octavo.profiles import vary
from octavo.runtime.core.trace import InferenceRecord, StepRecord, to_lines
from octavo.simulator import independent, simulate
from octavo.simulator.run import Prepared

SEEDS = st.integers(0, 10**6)


def ran(seed: int, **options: object) -> Prepared:
    ready = world(seed, **options)  # type: ignore[arg-type]
    ready.world.run()
    return ready


@settings(max_examples=examples(120), deadline=None)
@given(SEEDS)
def test_everything_that_begins_ends_once_and_nothing_is_left(seed: int) -> None:
    ready = ran(seed)
    books, queries = ready.world.council.books, ready.world.queries
    rejected = sum(query.outcome == "rejected" for query in queries)
    assert len({query.query for query in queries}) == len(queries)
    assert books.asked + rejected == len(queries)
    assert all(query.ended is not None for query in queries)
    assert books.asked == books.answered + books.failed
    assert books.started == books.finished + books.lost + books.withdrawn == len(ready.kept)
    assert ready.world.council.open == 0
    for device, _ in ready.fleet.replicas:
        assert device.idle
        for lane in device.lanes:
            assert len(lane.scheduler) == 0
            assert lane.scheduler.kv.used == 0


@settings(max_examples=examples(60), deadline=None)
@given(SEEDS)
def test_nothing_happens_before_its_cause(seed: int) -> None:
    ready = ran(seed)
    arrivals = {query.query: query.arrival for query in ready.world.queries}
    for record in ready.kept:
        times = [arrivals[record.query], record.submitted, record.scheduled, record.first_token, record.ended]
        known = [time for time in times if time is not None]
        assert known == sorted(known)
        if record.end == "finished" and record.device:
            assert None not in times
    for query in ready.world.queries:
        assert query.ended is not None
        assert query.ended >= query.arrival
        assert query.first_token is None or query.arrival <= query.first_token


@settings(max_examples=examples(40), deadline=None)
@given(SEEDS)
def test_a_device_runs_one_step_at_a_time_and_its_tokens_add_up(seed: int) -> None:
    ready = ran(seed)
    by_device: dict[str, list[StepRecord]] = defaultdict(list)
    for step in ready.steps:
        by_device[step.device].append(step)
    for steps in by_device.values():
        for before, after in pairwise(steps):
            assert after.start >= before.start + before.seconds - 1e-9
    written = sum(step.decodes * step.repeats for step in ready.steps)
    finished = [r for r in ready.kept if not r.judge and r.device]
    told = sum(max(r.new_tokens - 1, 0) for r in finished)
    firsts = sum(r.preemptions for r in finished)
    assert told - firsts <= written
    steady = not ready.operations.counts
    if steady and not any(r.end == "withdrawn" for r in ready.kept):
        assert written <= told + len(finished)


@settings(max_examples=examples(60), deadline=None)
@given(SEEDS, st.booleans())
def test_leaps_and_single_steps_give_the_same_trace(seed: int, swings: bool) -> None:
    alike(ran(seed, swings=swings), ran(seed, swings=swings, leaps=False))


@settings(max_examples=examples(60), deadline=None)
@given(SEEDS, st.booleans())
def test_devices_simulated_apart_do_what_they_do_together(seed: int, swings: bool) -> None:
    made = feed_forward(seed)
    independent.AT_ONCE = 7
    apart, together = ran(seed, of=made, apart=True, swings=swings), ran(seed, of=made, swings=swings)
    assert isinstance(apart.world, independent.Independent)
    assert not isinstance(together.world, independent.Independent)
    alike(apart, together)
    assert apart.world.council.books == together.world.council.books
    assert apart.world.network.bytes_sent == together.world.network.bytes_sent


def alike(one: Prepared, other: Prepared) -> None:
    """The same records, times within rounding, and the same forward passes."""
    for ours, theirs in ((one.world.queries, other.world.queries), (one.kept, other.kept)):
        assert len(ours) == len(theirs)
        for a, b in zip(_sorted(ours), _sorted(theirs), strict=True):
            for name in (each.name for each in fields(a)):
                mine, yours = getattr(a, name), getattr(b, name)
                if isinstance(mine, float) and isinstance(yours, float):
                    assert mine == pytest.approx(yours, rel=1e-9, abs=1e-9), name
                else:
                    assert mine == yours, name
    assert _expanded(one.steps) == _expanded(other.steps)


def _sorted(records: list) -> list:  # type: ignore[type-arg]
    def key(record: object) -> tuple[object, ...]:
        if isinstance(record, InferenceRecord):
            return record.query, record.model, record.judge, record.sample, record.prompt_tokens
        return (record.query,)  # type: ignore[attr-defined]

    return sorted(records, key=key)


def _expanded(steps: list[StepRecord]) -> Counter[tuple[str, int, int, int, int]]:
    """Every single forward pass."""
    found: Counter[tuple[str, int, int, int, int]] = Counter()
    for step in steps:
        for i in range(step.repeats):
            context = step.context + i * step.decodes
            found[step.device, step.decodes, context, step.prefill_tokens, step.preempted] += 1
    return found


@settings(max_examples=examples(25), deadline=None)
@given(SEEDS)
def test_the_same_seed_gives_the_same_bytes(seed: int) -> None:
    one, other = ran(seed), ran(seed)
    assert list(to_lines([*one.world.queries, *one.kept, *one.steps])) == list(
        to_lines([*other.world.queries, *other.kept, *other.steps])
    )


@settings(max_examples=examples(25), deadline=None)
@given(SEEDS, st.sampled_from(POLICIES), st.sampled_from(POLICIES))
def test_a_policy_shifts_neither_arrivals_nor_prompts(
    seed: int, one: dict[str, object], other: dict[str, object]
) -> None:
    if scenario(seed).workload.arrivals.kind == "closed_loop":
        return
    asked = [
        [(q.query, q.arrival, q.prompt_tokens) for q in ran(seed, policy=policy).world.queries]
        for policy in (one, other)
    ]
    assert asked[0] == asked[1]


@settings(max_examples=examples(20), deadline=None)
@given(SEEDS)
def test_cost_is_device_seconds_times_price_and_energy_at_least_idle(seed: int) -> None:
    made = scenario(seed)
    result = simulate(made, seeds=[seed])
    if not made.fleet.operations.autoscale:
        assert result.devices == pytest.approx(made.devices())
    per_hour = sum(
        count * (made.hardware[hardware].usd_per_hour(made.fleet.tiers[tier].basis) or 0.0)
        for (tier, hardware), count in result.devices.items()
    )
    watts = [(count, made.hardware[hardware]) for (_, hardware), count in result.devices.items()]
    devices = result.costs["devices"] / result["usd_per_query"] * result["usd_per_hour"]
    assert devices == pytest.approx(per_hour, rel=1e-9)
    assert result["watts"] >= sum(count * hardware.idle_watts for count, hardware in watts) * (1 - 1e-12)


def test_more_hardware_never_makes_it_slower() -> None:
    """At the same load: more replicas, and faster ones, within the interval over common seeds."""
    from octavo.profiles import load_scenario

    one = load_scenario("single-box", ["workload.queries=150", "workload.arrivals.rate=6 /s"])
    places = [{**place.dump(), "replicas": 2} for place in one.fleet.placement]
    more = vary(one, {"fleet": {"placement": places}})
    faster = vary(one, {"hardware": {"h100-sxm": {"bandwidth": 5e12}}})
    base = simulate(one, seeds=range(4))
    for better in (more, faster):
        result = simulate(better, seeds=range(4))
        for metric in ("latency_mean", "latency_p95", "ttft_p95"):
            assert result[metric] <= base[metric] * 1.02
