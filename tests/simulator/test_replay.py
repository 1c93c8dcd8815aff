"""Replays: a simulated trace replayed with the same step times is the same trace, and validation says so."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from octavo.profiles import ConfigError
from octavo.profiles.errors import GateError
from octavo.profiles.latency import LatencyProfile, Pace, StepTime
from octavo.runtime.core.trace import (
    InferenceRecord,
    QueryRecord,
    Record,
    RunRecord,
    StepRecord,
    from_lines,
    to_lines,
)
from octavo.simulator.replay import replay
from octavo.simulator.validate import validate


def profile(kind: str, slower: float = 1.0) -> LatencyProfile:
    steps = [
        StepTime(decodes=n, context=c, prefill_tokens=0, prefill_rows=0, seconds=slower * (1e-3 + 1e-4 * n + 1e-7 * c))
        for n in (1, 4, 16)
        for c in (16, 1000)
    ]
    steps += [
        StepTime(decodes=0, context=0, prefill_tokens=t, prefill_rows=1, seconds=slower * (1e-3 + 1e-5 * t))
        for t in (16, 64, 256)
    ]
    facts = {"hardware": "made-up", "provider": "none", "precision": "fp32", "threads": 1, "measured_on": "2025-01-01"}
    return LatencyProfile(name=kind, model=kind, kind=kind, machine={}, steps=steps, **facts)


PROFILES = [profile("decoder"), profile("judge")]


def header(policy: str = "ensemble", **settings: float | int | str) -> RunRecord:
    limits: dict[str, int | bool] = {"kv_blocks": 400, "block_tokens": 16, "max_rows": 16, "max_step_tokens": 256}
    devices = {"cpu:0": ["a", "b"], "cpu:1": ["c", "judge"]}
    every = {model: limits for models in devices.values() for model in models}
    return RunRecord(policy, settings, ("a", "b", "c"), 2, "judge", devices, every)


def load(count: int = 40, *, named: bool = False) -> Iterator[Record]:
    """Queries, and inferences of which only what is hidden counts. Candidates of one that is `named` end together."""
    rng = random.Random(0)
    now = 0.0
    for number in range(count):
        now += rng.expovariate(12.0)
        prompt = rng.randint(8, 60)
        yield QueryRecord(number, now, prompt, max_new_tokens=64)
        for model in "abc":
            for sample in range(2):
                written = rng.randint(2, 60)
                end = now + (0.1 if named else 0.1 + rng.random())
                yield InferenceRecord(
                    number, model, sample, False, "", prompt, written, now, now, now, end, mean_logprob=-rng.random()
                )
                score = InferenceRecord(
                    number, "judge", sample, True, "", prompt + written, 0, end, end, end, end, value=rng.random()
                )
                score.judges = model if named else None
                yield score


@pytest.mark.parametrize("policy", ["ensemble", "early_exit", "cascade", "mean_logprob"])
def test_a_replay_of_a_replay_is_the_same_trace(policy: str) -> None:
    once = replay([header(policy), *load()], PROFILES)
    twice = replay(list(from_lines(to_lines(once))), PROFILES)
    told = [[r for r in trace if not isinstance(r, StepRecord)] for trace in (once, twice)]
    assert told[0] == told[1]
    if policy != "early_exit":  # how far a leap would have gone is not known of what was withdrawn
        assert once == twice


def test_slower_steps_are_seen_as_an_error() -> None:
    once = replay([header(), *load()], PROFILES)
    slower = replay([header(), *load()], [profile("decoder", 1.2), profile("judge", 1.2)])
    compared = validate(once, slower)
    assert 0.1 < compared["tpot_p50"].error.value < 0.6
    with pytest.raises(GateError, match="tpot_p50: error"):
        compared.gate({"tpot_p50": 0.05})
    compared.gate({"tpot_p50": 0.9})


def swinging(pace: Pace) -> list[LatencyProfile]:
    return [each.model_copy(update={"pace": pace}) for each in PROFILES]


def ends(trace: list[Record]) -> list[float]:
    return [record.ended or 0.0 for record in trace if isinstance(record, QueryRecord)]


def test_a_constant_pace_is_a_slower_machine_and_a_pace_of_one_is_none() -> None:
    for share in (1.0, 1.7):
        slower = replay([header(), *load()], [profile("decoder", share), profile("judge", share)])
        swung = replay([header(), *load()], swinging(Pace(seconds=0.2, lanes=[[share] * 3])))
        assert ends(swung) == pytest.approx(ends(slower), rel=1e-6)


def test_swings_come_by_their_seed_leave_the_mean_step_and_widen_what_is_said() -> None:
    profiles = swinging(Pace(seconds=0.2, lanes=[[0.6] * 10 + [1.4] * 10, [1.2] * 5 + [0.8] * 10 + [1.2] * 5]))
    records = [header(), *load(120)]
    steady, again = replay(records, PROFILES), replay(records, profiles, seed=3)
    swung = [replay(records, profiles, seed=seed) for seed in range(10)]
    assert list(to_lines(swung[3])) == list(to_lines(again)) != list(to_lines(swung[4]))

    def step(trace: list[Record]) -> float:
        """Mean, of what the decodes usually take."""
        steps = [r for r in trace if isinstance(r, StepRecord) and r.decodes and not r.prefill_tokens]
        return sum(r.seconds for r in steps) / sum(1e-3 + 1e-4 * r.decodes + 1e-7 * r.context for r in steps)

    assert sum(map(step, swung)) / len(swung) == pytest.approx(step(steady), rel=0.05)
    several, one = validate(steady, swung[0], others=swung[1:]), validate(steady, swung[0])
    widths = [(e.high or 0.0) - (e.low or 0.0) for e in (several["latency_p50"].error, one["latency_p50"].error)]
    assert widths[0] > widths[1]


@pytest.mark.parametrize("named", [True, False])
def test_every_score_finds_its_candidate(named: bool) -> None:
    """By the name that its record bears, or by when it was asked for."""
    records = [header(), *load(named=named)]
    inferences = [r for r in records if isinstance(r, InferenceRecord)]
    pairs = zip(inferences[::2], inferences[1::2], strict=True)
    real = {(judge.query, candidate.model, judge.sample): judge.value for candidate, judge in pairs}
    once = replay(records, PROFILES)
    scores = [r for r in once if isinstance(r, InferenceRecord) and r.judge]
    assert {(r.query, r.judges, r.sample): r.value for r in scores} == real


def test_a_trace_without_a_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="`run` record"):
        replay(load(), PROFILES)
