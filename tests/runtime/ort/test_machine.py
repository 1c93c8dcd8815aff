"""Anything may be asked or withdrawn at any time: what is written is what is written alone, and nothing leaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

PROMPTS = ["a", "mids 52917340:", "mids 52917340: and", "0123456789 the quick brown fox jumps"]
MakeBench = Callable[..., Any]


def test_whatever_is_asked_and_withdrawn_whenever(bench: MakeBench) -> None:
    """Over memory that two prompts overfill, with chunks, shared prefixes, forks, groups larger than the batch."""
    single = bench()
    alone: dict[tuple[str, int, int, int, float], list[int]] = {}

    def expected(prompt: str, tokens: int, number: int, sample: int, temperature: float) -> list[int]:
        """What a sample writes in a roomy engine in which nothing is shared."""
        key = (prompt, tokens, number, sample, temperature)
        if key not in alone:
            asked = single.ask(prompt, sample + 1, tokens, number, temperature=temperature)
            for inference in asked[:-1]:
                single.withdraw(inference)
            single.run()
            alone[key] = single.tokens(asked[-1])
        return alone[key]

    class Engine(RuleBasedStateMachine):
        under_way = Bundle("under_way")

        def __init__(self) -> None:
            super().__init__()
            self.bench = bench(
                kv_blocks=24, block_tokens=4, max_rows=4, max_step_tokens=16, prefix_caching=True, hash_tokens=8
            )
            self.keys: dict[Any, tuple[str, int, int, int, float]] = {}
            self.withdrawn: set[Any] = set()

        @rule(
            target=under_way,
            prompt=st.sampled_from(PROMPTS),
            samples=st.integers(1, 6),
            tokens=st.integers(1, 16),
            number=st.integers(0, 1),
            temperature=st.sampled_from([0.0, 1.0]),
        )
        def ask(self, prompt: str, samples: int, tokens: int, number: int, temperature: float) -> Any:
            group = self.bench.ask(prompt, samples, tokens, number, temperature=temperature)
            for sample, inference in enumerate(group):
                self.keys[inference] = (prompt, tokens, number, sample, temperature)
            return multiple(*group)

        @rule(inference=consumes(under_way))
        def withdraw(self, inference: Any) -> None:
            if inference not in self.bench.done:
                self.withdrawn.add(inference)
            self.bench.withdraw(inference)

        @rule(times=st.integers(1, 8))
        def step(self, times: int) -> None:
            for _ in range(times):
                self.bench.step()
            assert self.bench.scheduler.kv.used <= self.bench.scheduler.kv.capacity

        def teardown(self) -> None:
            self.bench.run()
            assert self.bench.empty
            assert set(self.bench.done) == set(self.keys) - self.withdrawn
            for inference in self.bench.done:
                assert self.bench.tokens(inference) == expected(*self.keys[inference])

    run_state_machine_as_test(Engine, settings=settings(max_examples=15, stateful_step_count=14, deadline=None))
