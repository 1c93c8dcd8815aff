"""Anything may be asked or withdrawn at any time: what is written is what is written alone, and nothing leaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

PROMPTS = ["a", "mids 52917340:", "mids 52917340: and", "0123456789 the quick brown fox jumps"]
TIGHT: dict[str, Any] = {"kv_blocks": 24, "block_tokens": 4, "max_rows": 4, "max_step_tokens": 16}
SHARED: dict[str, Any] = TIGHT | {"prefix_caching": True, "hash_tokens": 8}
HOW = st.sampled_from(
    [
        (("temperature", 0.0),),
        (("temperature", 1.0),),
        (("temperature", 1.0), ("top_p", 0.9), ("presence_penalty", 1.5), ("repetition_penalty", 1.2)),
        (("temperature", 1.0), ("min_p", 0.05), ("stop", ("e", "12", "ab"))),
    ]
)
MakeBench = Callable[..., Any]
Asked = tuple[str, int, int, int, str, tuple[tuple[str, Any], ...]]


def check(bench: MakeBench, folder: Path, limits: dict[str, Any], experts: list[str], examples: int) -> None:
    """Over memory that two prompts overfill: chunks, forks, preemption, groups larger than the batch."""
    single = bench(folder)
    alone: dict[Asked, tuple[list[int], str]] = {}

    def expected(asked: Asked) -> tuple[list[int], str]:
        """What a sample writes in a roomy engine in which nothing is shared."""
        prompt, tokens, number, sample, expert, how = asked
        if asked not in alone:
            group = single.ask(prompt, sample + 1, tokens, number, expert, **dict(how))
            for inference in group[:-1]:
                single.withdraw(inference)
            single.run()
            alone[asked] = written(single, group[-1])
        return alone[asked]

    def written(on: Any, inference: Any) -> tuple[list[int], str]:
        return on.tokens(inference), on.contents.written(on.done[inference]).text

    class Engine(RuleBasedStateMachine):
        under_way = Bundle("under_way")

        def __init__(self) -> None:
            super().__init__()
            self.bench = bench(folder, **limits)
            self.keys: dict[Any, Asked] = {}
            self.withdrawn: set[Any] = set()

        @rule(
            target=under_way,
            prompt=st.sampled_from(PROMPTS),
            samples=st.integers(1, 6),
            tokens=st.integers(1, 16),
            number=st.integers(0, 1),
            expert=st.sampled_from(experts),
            how=HOW,
        )
        def ask(self, prompt: str, samples: int, tokens: int, number: int, expert: str, how: Any) -> Any:
            group = self.bench.ask(prompt, samples, tokens, number, expert, **dict(how))
            for sample, inference in enumerate(group):
                self.keys[inference] = (prompt, tokens, number, sample, expert, how)
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
                assert written(self.bench, inference) == expected(self.keys[inference])

    run_state_machine_as_test(Engine, settings=settings(max_examples=examples, stateful_step_count=14, deadline=None))


def test_whatever_is_asked_and_withdrawn_whenever(bench: MakeBench, bundle: Path) -> None:
    """With prompts that share their beginnings."""
    check(bench, bundle, SHARED, ["expert-0"], 15)


def test_a_sliding_window_forgets_nothing_that_it_should_not(
    bench: MakeBench, make_bundle: Callable[..., Path]
) -> None:
    check(bench, make_bundle(1, window=6), SHARED, ["expert-0"], 10)


def test_adapters_in_one_batch_are_each_their_own(bench: MakeBench, make_bundle: Callable[..., Path]) -> None:
    pytest.importorskip("peft")
    check(bench, make_bundle(3, adapters=True), TIGHT, ["expert-0", "expert-1", "expert-2"], 10)


def test_the_largest_logits_alone_are_drawn_from_alike(bench: MakeBench, make_bundle: Callable[..., Path]) -> None:
    check(bench, make_bundle(1, top_k=12), SHARED, ["expert-0"], 8)
