"""Replays: a simulated trace replayed with the same step times is the same trace, and validation says so."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from octavo.profiles import ConfigError
from octavo.profiles.errors import GateError
from octavo.profiles.latency import LatencyProfile, StepTime
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, RunRecord, from_lines, to_lines
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


def load(count: int = 40) -> Iterator[Record]:
    """Queries, and inferences of which only what is hidden counts."""
    rng = random.Random(0)
    now = 0.0
    for number in range(count):
        now += rng.expovariate(12.0)
        prompt = rng.randint(8, 60)
        yield QueryRecord(number, now, prompt, max_new_tokens=64)
        for model in "abc":
            for sample in range(2):
                written = rng.randint(2, 60)
                end = now + 0.1 + rng.random()
                yield InferenceRecord(
                    number, model, sample, False, "", prompt, written, now, now, now, end, mean_logprob=-rng.random()
                )
                yield InferenceRecord(
                    number, "judge", sample, True, "", prompt + written, 0, end, end, end, end, value=rng.random()
                )


@pytest.mark.parametrize("policy", ["ensemble", "early_exit", "cascade", "mean_logprob"])
def test_a_replay_of_a_replay_is_the_same_trace(policy: str) -> None:
    once = replay([header(policy), *load()], PROFILES)
    twice = replay(list(from_lines(to_lines(once))), PROFILES)
    compared = validate(once, twice)
    if policy in ("ensemble", "mean_logprob"):
        assert list(to_lines(once)) == list(to_lines(twice))
    assert all(abs(c.error.value) < 0.03 for c in compared.metrics if c.metric.endswith(("p50", "mean")))


def test_slower_steps_are_seen_as_an_error() -> None:
    once = replay([header(), *load()], PROFILES)
    slower = replay([header(), *load()], [profile("decoder", 1.2), profile("judge", 1.2)])
    compared = validate(once, slower)
    assert 0.1 < compared["tpot_p50"].error.value < 0.6
    with pytest.raises(GateError, match="tpot_p50: error"):
        compared.gate({"tpot_p50": 0.05})
    compared.gate({"tpot_p50": 0.9})


def test_every_score_finds_its_candidate() -> None:
    records = [header(), *load()]
    once = replay(records, PROFILES)
    real = {(r.query, r.value) for r in records if isinstance(r, InferenceRecord) and r.judge}
    simulated = {(r.query, r.value) for r in once if isinstance(r, InferenceRecord) and r.judge}
    assert real == simulated


def test_a_trace_without_a_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="`run` record"):
        replay(load(), PROFILES)
