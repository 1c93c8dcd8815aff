"""The simulator, given a real run's arrivals and step times, takes the real run's decisions, one by one."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from recorded import Taken, replayed, taped

from octavo.runtime.core.policies import policy_named
from octavo.runtime.core.trace import QueryRecord
from octavo.runtime.local import Octavo

PROMPTS = ["a", "mids 52917340:", "0123456789", "the quick brown fox jumps over the lazy"]
POLICIES: dict[str, dict[str, Any]] = {
    "ensemble": {},
    "early_exit": {"sure_at": 0.5},
    "cascade": {"first": "expert-0", "accept_at": 0.5},
    "pruned": {"after_tokens": 6, "keep": 0.5},
    "best_of_n": {"samples": 9},
}


def rounded(steps: list[Taken]) -> list[tuple[Any, ...]]:
    return [
        (round(s.began, 6), s.model, s.decodes, s.context, s.prefill_tokens, s.preempted, s.admitted, s.stopped)
        for s in steps
    ]


def outcome(query: QueryRecord) -> tuple[Any, ...]:
    return query.outcome, query.chosen, query.reason, query.total_tokens, query.wasted_tokens, query.degraded


@pytest.mark.parametrize("policy", POLICIES)
def test_the_simulator_decides_as_the_real_loop_did(bundle: Path, policy: str) -> None:
    """Two devices, little memory, deadlines and cancellations."""
    rng = random.Random(policy)
    chosen = policy_named(policy, **POLICIES[policy])
    with (
        taped() as tape,
        Octavo.load(
            bundle,
            devices=["cpu:0", "cpu:1"],
            threads=1,
            max_rows=6,
            max_step_tokens=24,
            kv_bytes=3 * 12 * 16 * 512,
            prefix_tokens=16,
            keep_records=True,
        ) as octavo,
    ):
        futures = []
        for number in range(24):
            options = {"deadline": 0.01} if rng.random() < 0.15 else {}
            futures.append(
                octavo.submit(
                    rng.choice(PROMPTS),
                    policy=chosen,
                    number=number,
                    max_new_tokens=rng.randint(8, 48),
                    ends=False,
                    **options,
                )
            )
            if rng.random() < 0.2:
                rng.choice(futures).cancel()
            time.sleep(rng.choice([0, 0, 0.002, 0.02]))
        octavo.loop.settle()
        real = {record.query: record for record in octavo.records() if isinstance(record, QueryRecord)}
        world, steps = replayed(tape, octavo, chosen)
    for device, taken in tape.steps.items():
        for mine, theirs in zip(rounded(taken), rounded(steps[device]), strict=True):
            assert mine == theirs
    for query in world.queries:
        assert outcome(query) == outcome(real[query.query])
    simulated = {query.query: query.ended for query in world.queries}
    order = [simulated[query] or 0.0 for query in sorted(real, key=lambda query: real[query].ended or 0.0)]
    assert order == sorted(order)
    assert sum(len(step.preempted) for taken in tape.steps.values() for step in taken) > 0
    assert tape.ended_early
