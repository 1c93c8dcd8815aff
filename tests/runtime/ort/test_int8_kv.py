"""The engine's laws over a KV cache in int8: a quarter of the bytes, and rows fork, move and come back as they were."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from octavo.runtime.local import Octavo
from tests.runtime.ort import test_engine as laws

MakeBench = Callable[..., Any]
LAWS: dict[str, Callable[..., None]] = {
    "the batch": laws.test_greedy_output_does_not_depend_on_the_batch,
    "seeds": laws.test_the_same_seed_gives_the_same_candidates_whatever_the_batch,
    "forks": laws.test_a_fork_is_a_separate_prefill,
    "chunks": partial(laws.test_a_prompt_in_chunks_is_the_prompt_at_once, budget=7),
    "preemption": partial(laws.test_a_preempted_inference_writes_what_it_would_have_written, temperature=1.0),
    "prefixes": laws.test_a_cached_prefix_changes_nothing_but_what_is_computed,
}
RANDOM: list[Any] = [
    laws.test_whoever_is_cancelled_whenever_nothing_leaks,
    laws.test_cached_prefixes_survive_little_memory_and_withdrawals,
]


@pytest.fixture(scope="session")
def folder(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(kv="int8")


@pytest.mark.parametrize("law", LAWS)
def test_a_law_holds(law: str, bench: MakeBench, folder: Path) -> None:
    LAWS[law](bench=partial(bench, folder))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("law", RANDOM, ids=["cancelling", "forgetting"])
def test_little_memory_is_enough(law: Any, seed: int, bench: MakeBench, folder: Path) -> None:
    """Some of the random loads that the same laws are tried on over a cache of the model's own type."""
    law.hypothesis.inner_test(bench=partial(bench, folder), seed=seed, blocks=32 + 5 * seed, budget=8 + 9 * seed)


def test_the_same_memory_holds_four_times_the_tokens(bundle: Path, folder: Path) -> None:
    blocks, texts = [], []
    for path in (bundle, folder):
        with Octavo.load(path, kv_bytes=3 * 12 * 16 * 512, max_rows=256) as octavo:
            texts.append([octavo.ask(prompt, seed=1, max_new_tokens=4).text for prompt in laws.PROMPTS])
            limits = octavo.run_record().limits
            blocks.append({name: each["kv_blocks"] for name, each in limits.items() if "kv_blocks" in each})
    assert {name: 4 * count for name, count in blocks[0].items()} == blocks[1]
    assert all(map(any, texts))
