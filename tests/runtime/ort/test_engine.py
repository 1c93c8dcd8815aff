"""Laws of the expert's engine: what is in the batch beside a row, and how it got there, changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Bench = Any
MakeBench = Callable[..., Bench]
PROMPTS = ["a", "mids 52917340:", "0123456789", "the quick brown fox jumps over the lazy dog"]


def alone(bench: MakeBench, prompt: str, **options: Any) -> list[int]:
    one = bench()
    (inference,) = one.ask(prompt, **options)
    one.run()
    return one.tokens(inference)


def empty_caches(session: Any) -> dict[str, Any]:
    caches = [entry for entry in session.get_inputs() if entry.name.startswith("past")]
    return {entry.name: np.zeros((1, entry.shape[1], 96, entry.shape[3]), np.float32) for entry in caches}


def test_greedy_output_does_not_depend_on_the_batch(bench: MakeBench) -> None:
    many = bench()
    asked = [many.ask(prompt, samples=1, temperature=0)[0] for prompt in PROMPTS]
    for _ in range(3):
        many.step()
    late = [many.ask(prompt, temperature=0)[0] for prompt in reversed(PROMPTS)]
    many.run()
    expected = [alone(bench, prompt, temperature=0) for prompt in PROMPTS]
    assert [many.tokens(inference) for inference in asked] == expected
    assert [many.tokens(inference) for inference in late] == expected[::-1]
    assert many.empty


def test_greedy_output_is_that_of_a_plain_session(bench: MakeBench, bundle: Path) -> None:
    """Token by token from scratch: a prefill of everything so far, no cache, no batch."""
    session = ort.InferenceSession(bundle / "expert-0" / "model.onnx", providers=["CPUExecutionProvider"])
    ids = [int(token) for token in bench().vocabulary.encode(PROMPTS[1])]
    written = []
    for _ in range(12):
        feeds = empty_caches(session)
        feeds |= {"input_ids": np.array([ids]), "lengths": np.array([len(ids)], np.int32)}
        feeds |= {"total_length": np.array([len(ids)], np.int32), "logit_positions": np.array([[len(ids) - 1]])}
        written.append(int(session.run(["logits"], feeds)[0][0, 0].argmax()))
        ids.append(written[-1])
        if written[-1] == 2:
            break
    assert alone(bench, PROMPTS[1], temperature=0) == written


def test_a_fork_is_a_separate_prefill(bench: MakeBench) -> None:
    forked, apart = bench(), bench()
    together = forked.ask(PROMPTS[1], samples=4)
    forked.run()
    for sample in range(4):
        group = apart.ask(PROMPTS[1], samples=sample + 1)
        for inference in group[:-1]:
            apart.withdraw(inference)
        apart.run()
        assert apart.tokens(group[-1]) == forked.tokens(together[sample])
    assert forked.steps[0].prefill_tokens == len(forked.vocabulary.encode(PROMPTS[1]))


def test_the_same_seed_gives_the_same_candidates_whatever_the_batch(bench: MakeBench) -> None:
    expected = alone(bench, PROMPTS[1], number=3)
    crowd = bench()
    for number, prompt in enumerate(PROMPTS * 2):
        crowd.ask(prompt, samples=1, number=100 + number, tokens=5 + number)
    crowd.step()
    (inference,) = crowd.ask(PROMPTS[1], number=3)
    crowd.run()
    assert crowd.tokens(inference) == expected
    assert alone(bench, PROMPTS[1], number=4) != expected


@pytest.mark.parametrize("budget", [3, 7, 16])
def test_a_prompt_in_chunks_is_the_prompt_at_once(bench: MakeBench, budget: int) -> None:
    chunked = bench(max_rows=3, max_step_tokens=budget)
    first = chunked.ask(PROMPTS[3], samples=2, temperature=0)
    second = chunked.ask(PROMPTS[1], temperature=0)
    chunked.run()
    assert any(chunk.start for step in chunked.steps for chunk in step.chunks)
    expected = alone(bench, PROMPTS[3], temperature=0)
    assert [chunked.tokens(inference) for inference in first] == [expected, expected]
    assert chunked.tokens(second[0]) == alone(bench, PROMPTS[1], temperature=0)
    assert chunked.empty


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_preempted_inference_writes_what_it_would_have_written(bench: MakeBench, temperature: float) -> None:
    tight, roomy = bench(kv_blocks=12, block_tokens=4), bench()
    asked = []
    for each in (tight, roomy):
        asked.append(
            [each.ask(prompt, number=i, tokens=20, temperature=temperature)[0] for i, prompt in enumerate(PROMPTS[:3])]
        )
        each.run()
    assert sum(len(step.preempted) for step in tight.steps) > 0
    assert [tight.tokens(i) for i in asked[0]] == [roomy.tokens(i) for i in asked[1]]
    for one, other in zip(*asked, strict=True):
        assert tight.done[one].mean_logprob == pytest.approx(roomy.done[other].mean_logprob, abs=1e-5)
    assert tight.empty


def test_the_mean_log_probability_is_that_of_the_models_own_distribution(bench: MakeBench, bundle: Path) -> None:
    one = bench()
    (inference,) = one.ask(PROMPTS[1], temperature=0.5, top_k=5, tokens=6)
    one.run()
    prompt = [int(token) for token in one.vocabulary.encode(PROMPTS[1])]
    written = one.tokens(inference)
    session = ort.InferenceSession(bundle / "expert-0" / "model.onnx", providers=["CPUExecutionProvider"])
    ids = prompt + written
    feeds = empty_caches(session)
    feeds |= {"input_ids": np.array([ids]), "lengths": np.array([len(ids)], np.int32)}
    picks = np.arange(len(prompt) - 1, len(ids) - 1)[None]
    feeds |= {"total_length": np.array([len(ids)], np.int32), "logit_positions": picks}
    logits = session.run(["logits"], feeds)[0][0].astype(np.float64)
    own = logits[np.arange(len(written)), written] - np.log(np.exp(logits).sum(axis=1))
    assert one.done[inference].mean_logprob == pytest.approx(own.mean(), abs=1e-4)


def test_a_stop_string_ends_a_candidate_before_it(bench: MakeBench) -> None:
    free = bench()
    (inference,) = free.ask(PROMPTS[1], number=1, tokens=40)
    free.run()
    text = free.contents.written(free.done[inference]).text
    stop = text[3:6]
    stopped = bench()
    (inference,) = stopped.ask(PROMPTS[1], number=1, tokens=40, stop=("never there", stop))
    stopped.run()
    candidate = stopped.done[inference]
    assert stopped.contents.written(candidate).text == text[: text.index(stop)]
    assert candidate.new_tokens < free.done[next(iter(free.done))].new_tokens
    assert candidate.finished


def test_penalties_keep_a_greedy_text_from_repeating_itself(bench: MakeBench) -> None:
    plain = alone(bench, "a", temperature=0, tokens=30)
    punished = alone(bench, "a", temperature=0, tokens=30, presence_penalty=50.0)
    assert len(set(punished)) == len(punished)
    assert len(set(plain)) < len(plain)


def test_logits_that_are_not_finite_lose_the_inference(bench: MakeBench, make_bundle: Callable[..., Path]) -> None:
    broken = bench(make_bundle(1, broken=[0]))
    asked = broken.ask("abc", samples=2)
    broken.run()
    assert [lost.inference for lost in broken.lost] == asked
    assert "not finite" in broken.lost[0].reason
    assert broken.empty


def test_the_largest_logits_are_enough_to_write(bench: MakeBench, make_bundle: Callable[..., Path]) -> None:
    """A graph that gives the 8 largest logits draws what all logits restricted to the 8 largest draw."""
    top = bench(make_bundle(1, top_k=8))
    (inference,) = top.ask(PROMPTS[1], number=5, tokens=20)
    top.run()
    assert len(top.tokens(inference)) > 1
    full = bench()
    (other,) = full.ask(PROMPTS[1], number=5, tokens=20, temperature=0)
    (same,) = top.ask(PROMPTS[1], number=5, tokens=20, temperature=0)
    full.run()
    top.run()
    assert top.tokens(same) == full.tokens(other)
    assert top.done[same].mean_logprob == pytest.approx(full.done[other].mean_logprob, abs=1e-5)


def test_graphs_written_for_tensorrt_are_called_by_their_own_contract(
    bench: MakeBench, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, which runs the same standard operators: prefill, chunks, forks and decodes agree."""
    from octavo.runtime.ort import session

    monkeypatch.setitem(session.LOWERINGS, "CPUExecutionProvider", ("tensorrt",))
    folder = make_bundle(1, targets=["tensorrt"], precision="fp16")
    whole, chunked = bench(folder), bench(folder, max_rows=3, max_step_tokens=7)
    written = []
    for each in (whole, chunked):
        first = each.ask(PROMPTS[3], samples=2, temperature=0)
        second = each.ask(PROMPTS[1], temperature=0)
        each.run()
        written.append([each.tokens(inference) for inference in (*first, *second)])
        assert each.empty
    assert written[0] == written[1]
    assert written[0][0] == written[0][1] != written[0][2]


def test_a_cached_prefix_changes_nothing_but_what_is_computed(bench: MakeBench) -> None:
    cached = bench(prefix_caching=True, hash_tokens=16, block_tokens=16)
    plain = bench()
    common = PROMPTS[3] + " and "
    prompts = [common + end for end in ("a", "bc", "", "a")] + [common[:20]]
    written = []
    for each in (cached, plain):
        asked = []
        for prompt in prompts:
            asked += each.ask(prompt, samples=2, temperature=0)
            each.run()
        written.append([each.tokens(inference) for inference in asked])
        assert each.empty
    assert written[0] == written[1]
    computed = [sum(step.prefill_tokens for step in each.steps) for each in (cached, plain)]
    assert computed[0] < computed[1] - 3 * 32


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(32, 70), st.integers(8, 64))
def test_cached_prefixes_survive_little_memory_and_withdrawals(
    bench: MakeBench, seed: int, blocks: int, budget: int
) -> None:
    rng = np.random.default_rng(seed)
    tight = bench(
        kv_blocks=blocks, block_tokens=4, max_rows=4, max_step_tokens=budget, prefix_caching=True, hash_tokens=8
    )
    asked = []
    for number in range(6):
        prompt = PROMPTS[3][: int(rng.integers(7, 40))] + "xyz"[rng.integers(3)]
        asked += tight.ask(prompt, samples=int(rng.integers(1, 3)), number=number, tokens=6, temperature=0)
        for _ in range(rng.integers(8)):
            tight.step()
        if rng.random() < 0.4:
            tight.withdraw(asked[rng.integers(len(asked))])
    tight.run()
    assert tight.empty
    for inference in list(tight.done)[-2:]:
        prompt = tight.vocabulary.decode(tight.contents.request(inference.query).prompt)
        assert tight.tokens(inference) == alone(bench, prompt, temperature=0, tokens=6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(14, 60), st.integers(4, 64))
def test_whoever_is_cancelled_whenever_nothing_leaks(bench: MakeBench, seed: int, blocks: int, budget: int) -> None:
    """Random arrivals and withdrawals over little memory: the rest write what they write alone, and nothing is left."""
    rng = np.random.default_rng(seed)
    tight = bench(kv_blocks=blocks, block_tokens=4, max_rows=4, max_step_tokens=budget)
    asked = []
    for number in range(6):
        prompt, tokens = PROMPTS[rng.integers(3)], int(rng.integers(1, 16))
        samples = int(rng.integers(1, 4))
        asked += tight.ask(prompt, samples=samples, number=number, tokens=tokens, temperature=0)
        for _ in range(rng.integers(4)):
            tight.step()
        if rng.random() < 0.6:
            tight.withdraw(asked[rng.integers(len(asked))])
    tight.run()
    assert tight.empty
    for inference in list(tight.done)[:2]:
        prompt = tight.vocabulary.decode(tight.contents.request(inference.query).prompt)
        expected = alone(bench, prompt, temperature=0, tokens=inference.budget)
        assert tight.tokens(inference) == expected
