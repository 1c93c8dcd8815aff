"""`Octavo` as its users see it: results, seeds, streams, and what wrong input gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.profiles.errors import BundleError, ConfigError, MachineError
from octavo.runtime.core.policies import POLICIES
from octavo.runtime.core.trace import InferenceRecord, RunRecord, StepRecord
from octavo.runtime.local import Delta, Octavo, Result
from octavo.runtime.ort.providers import CPU, CUDA, probe
from octavo.runtime.sampling import Sampling


@pytest.fixture(scope="module")
def octavo(bundle: Path) -> Iterator[Octavo]:
    with Octavo.load(bundle) as loaded:
        yield loaded


def texts(result: Result) -> list[str]:
    return [candidate.text for candidate in result.candidates]


def test_an_ensemble_brings_every_sample_of_every_expert_with_its_value(octavo: Octavo) -> None:
    result = octavo.ask("mids 1234:", seed=1, max_new_tokens=8)
    assert [(c.expert, c.sample) for c in result.candidates] == [
        ("expert-0", 0),
        ("expert-0", 1),
        ("expert-1", 0),
        ("expert-1", 1),
    ]
    values = [candidate.value for candidate in result.candidates]
    assert all(value is not None and 0 < value < 1 for value in values)
    assert result.chosen.value == max(value for value in values if value is not None)
    assert result.text == result.chosen.text
    assert result.new_tokens == sum(candidate.new_tokens for candidate in result.candidates)
    assert (result.provider, result.fallback) == ("CPUExecutionProvider", None)
    assert 0 < max(candidate.seconds for candidate in result.candidates) <= result.seconds


def test_the_same_seed_gives_the_same_candidates_alone_or_in_a_crowd(octavo: Octavo) -> None:
    alone = octavo.ask("mids 1234:", seed=5, max_new_tokens=20)
    crowd = octavo.ask_many(["mids 1234:", *("abcdefgh"[:n] for n in range(1, 8))], seed=5, max_new_tokens=20)
    assert texts(crowd[0]) == texts(alone)
    assert texts(octavo.ask("mids 1234:", seed=6, max_new_tokens=20)) != texts(alone)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_answers(octavo: Octavo, policy: str) -> None:
    result = octavo.ask("abc", policy=policy, max_new_tokens=20, verify=lambda text: "a" in text)
    assert result.chosen in result.candidates
    assert not result.degraded


def test_an_expert_may_have_its_own_sampling(octavo: Octavo) -> None:
    result = octavo.ask("abc", experts={"expert-0": Sampling(temperature=0)}, max_new_tokens=20)
    first, second, third, fourth = texts(result)
    assert first == second
    assert third != fourth


VARIANTS = {"expert-0": "say {prompt} " * 11}


def test_an_expert_with_a_variant_answers_as_if_that_had_been_asked_and_the_others_as_ever(octavo: Octavo) -> None:
    options: dict[str, Any] = {"seed": 4, "max_new_tokens": 8}
    plain, asked = octavo.ask("ab", **options), octavo.ask(VARIANTS["expert-0"].replace("{prompt}", "ab"), **options)
    for _ in range(2):  # the second time its prefix is cached
        mixed = octavo.ask("ab", variants=VARIANTS, **options)
        assert texts(mixed) == [*texts(asked)[:2], *texts(plain)[2:]]
        assert [c.value for c in mixed.candidates[2:]] == pytest.approx([c.value for c in plain.candidates[2:]])
    chat = octavo.ask([{"role": "user", "content": "ab"}], variants={"expert-0": "{prompt}"}, **options)
    assert texts(chat) == texts(octavo.ask([{"role": "user", "content": "ab"}], **options))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_takes_variants(octavo: Octavo, policy: str) -> None:
    result = octavo.ask("ab", variants=VARIANTS, policy=policy, max_new_tokens=20, verify=lambda text: "a" in text)
    assert result.chosen in result.candidates
    assert not result.degraded


@pytest.mark.parametrize(
    ("prompt", "variants", "message"),
    [
        ("a", {"nobody": "{prompt}"}, "variants: no expert 'nobody'"),
        ("a", {"expert-0": "prompt"}, "variants: expert-0: a template must be a text with {prompt}"),
        (np.array([3, 4]), {"expert-0": "{prompt}"}, "variants: the prompt must be a text"),
        ("a", {"expert-0": "{prompt}" * 100_000}, "too long for the context"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(octavo: Octavo, prompt: Any, variants: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        octavo.ask(prompt, variants=variants)


def test_the_core_knows_how_long_each_experts_prompt_is(bundle: Path) -> None:
    with Octavo.load(bundle, keep_records=True) as octavo:
        octavo.ask("ab", variants={"expert-0": "ab {prompt}"}, max_new_tokens=4)
        runs = [record for record in octavo.records() if isinstance(record, InferenceRecord)]
        read = {"expert-0": "ab ab", "expert-1": "ab"}
        lengths = {name: len(octavo.vocabulary.encode(text)) for name, text in read.items()}
    assert all(run.prompt_tokens == lengths[run.model] for run in runs if run.model in lengths)
    wrote = {(run.model, run.sample): run.new_tokens for run in runs if not run.judge}
    judged = sorted(run.prompt_tokens for run in runs if run.judge)
    assert judged == sorted(lengths["expert-1"] + written for written in wrote.values())


def test_a_stream_gives_the_text_of_all_candidates_and_then_the_result(octavo: Octavo) -> None:
    async def collect() -> tuple[dict[tuple[str, int], str], Result]:
        heard: dict[tuple[str, int], str] = {}
        async for event in octavo.stream("abc", seed=3, max_new_tokens=12):
            if isinstance(event, Delta):
                key = (event.expert, event.sample)
                heard[key] = heard.get(key, "") + event.text
            else:
                return heard, event
        raise AssertionError("the stream ended without a result")

    heard, result = asyncio.run(collect())
    assert heard == {(c.expert, c.sample): c.text for c in result.candidates if c.text}


def test_leaving_a_stream_withdraws_the_query(octavo: Octavo) -> None:
    async def leave() -> None:
        async for _ in octavo.stream("abc", max_new_tokens=60):
            break

    before = octavo.loop.council.books.failed
    asyncio.run(leave())
    assert octavo.loop.council.books.failed == before + 1


def test_a_conversation_is_asked_through_the_chat_template(octavo: Octavo) -> None:
    assert octavo.ask([{"role": "user", "content": "abc"}], max_new_tokens=2).prompt == "abc"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "best"}, "no policy 'best'"),
        ({"temperature": -1}, "temperature must be in"),
        ({"temprature": 1}, "no option 'temprature'"),
        ({"max_new_tokens": 0}, "max_new_tokens: must be a whole number of at least 1, got 0"),
        ({"max_new_tokens": 2.5}, r"max_new_tokens: .* got 2\.5"),
        ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"temperature": float("nan")}, "temperature must be in"),
        ({"top_k": 2.5}, r"top_k must be a whole number, got 2\.5"),
        ({"stop": [""]}, "stop: must be texts that are not empty"),
        ({"stop": [3]}, "stop: must be texts"),
        ({"seed": None}, "seed: must be a whole number, got None"),
        ({"min_tokens": -1}, "min_tokens: must be a whole number of at least 0"),
        ({"top_logprobs": 1.5}, r"top_logprobs: must be a whole number in \[0, 51\]"),
        ({"deadline": float("nan")}, "deadline: must be seconds"),
        ({"deadline": -1}, "deadline: must be seconds"),
        ({"label": "text"}, "label: must be a function, got 'text'"),
        ({"policy": 3}, "policy: must be a function"),
        ({"experts": {"expert-0": 3}}, "experts: expert-0: must be a Sampling"),
        ({"experts": {"expert-0": {"heat": 3}}}, "experts: expert-0: no option 'heat'"),
        ({"policy": "early_exit", "settings": {"by": "luck"}}, "by must be one of value, majority, got 'luck'"),
        ({"policy": "best_of_n", "settings": {"by": "luck"}}, "by must be one of value, mean_logprob"),
        ({"policy": "best_of_n", "settings": {"samples": 0}}, "samples must be a whole number of at least 1"),
        ({"policy": "pruned", "settings": {"keep": 0}}, r"keep must be in \(0, 1\]"),
        ({"policy": "filtered", "settings": {"verifier": "mine"}, "verify": bool}, "the verifier here is 'verifier'"),
        ({"policy": "single", "settings": {"expert": "nobody"}}, "expert: no expert 'nobody'; there are expert-0"),
        ({"experts": {"nobody": Sampling()}}, "experts: no expert 'nobody'"),
        ({"policy": "filtered"}, "needs a verifier"),
        ({"policy": "ensemble", "settings": {"colour": 1}}, "policy: .*'colour'"),
        ({"policy": "filtered", "settings": {"then": "luck"}, "verify": bool}, "policy: filtered ranks"),
    ],
)
def test_wrong_options_are_refused_by_name(octavo: Octavo, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        octavo.ask("abc", **options)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (np.array([], np.int64), "it has no tokens"),
        (np.array([1.0, 2.0]), "token ids are whole numbers in a row, got float64"),
        (np.array([[5, 6]]), r"token ids are whole numbers in a row, got int64 \[1, 2\]"),
        ([5, 64], r"token ids are in \[0, 64\), got 5 to 64"),
        ([-1, 5], r"token ids are in \[0, 64\)"),
        ([], "must be a text, a list of messages, or token ids, got list"),
        (None, "got NoneType"),
        (b"abc", "got bytes"),
        ("a\ud800", "a lone surrogate"),
    ],
)
def test_what_is_no_prompt_is_refused_and_harms_nobody(octavo: Octavo, prompt: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        octavo.ask(prompt)
    assert not octavo.loop.dead


def test_token_ids_may_be_a_list(octavo: Octavo) -> None:
    ids = octavo.vocabulary.encode("abc")
    expected = texts(octavo.ask("abc", max_new_tokens=6))
    assert texts(octavo.ask(ids.tolist(), max_new_tokens=6)) == texts(octavo.ask(ids, max_new_tokens=6)) == expected


def test_a_single_text_is_not_taken_for_several_prompts(octavo: Octavo) -> None:
    with pytest.raises(ConfigError, match="give a list of prompts"):
        octavo.ask_many("abc")
    assert octavo.ask_many([]) == []


def test_a_closed_bundle_says_so(bundle: Path) -> None:
    with Octavo.load(bundle) as loaded:
        loaded.ask("abc", max_new_tokens=2)
    with pytest.raises(ConfigError, match="this bundle is closed"):
        loaded.ask("abc", max_new_tokens=2)
    loaded.close()


def test_zero_samples_are_refused(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="samples: must be a whole number of at least 1, got 0"):
        Octavo.load(bundle, samples=0)


def test_little_memory_for_kv_shortens_the_context_and_says_so(bundle: Path) -> None:
    with Octavo.load(bundle) as roomy:
        per_token = next(graph.kv for graph in roomy.manifest.graphs if graph.kv).bytes_per_token
        expected = texts(roomy.ask("abc", max_new_tokens=20, ends=False))
    with Octavo.load(bundle, kv_bytes=3 * 40 * per_token) as tight:
        assert tight.placed.context == 32
        assert texts(tight.ask("abc", max_new_tokens=20, ends=False)) == expected
        with pytest.raises(ConfigError, match="too long for the context of 32"):
            tight.ask("a" * 40)
    with pytest.raises(ConfigError, match=r"do not hold one sequence of 64 tokens \(context\)"):
        Octavo.load(bundle, kv_bytes=3 * 40 * per_token, context=64)


def test_penalties_go_on_where_a_candidate_is_continued(octavo: Octavo) -> None:
    """Pruned: what was written before the cut is punished after it as it would have been without one."""
    hot = {"temperature": 0.0, "presence_penalty": 60.0, "max_new_tokens": 24, "ends": False}
    whole = octavo.ask("abc", policy="mean_logprob", **hot)
    cut = octavo.ask("abc", policy="pruned", settings={"after_tokens": 5, "keep": 1.0}, **hot)
    assert texts(cut) == texts(whole)


def test_a_prompt_longer_than_the_context_is_refused_with_its_length(octavo: Octavo) -> None:
    with pytest.raises(ConfigError, match="101 tokens are too long for the context of 96"):
        octavo.ask("a" * 100)
    assert octavo.ask("a" * 93).chosen.new_tokens <= 2


def test_a_bundle_that_is_not_there_or_was_changed_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        Octavo.load(tmp_path / "nothing")
    changed = tmp_path / "changed"
    for path in bundle.rglob("*"):
        target = changed / path.relative_to(bundle)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    weights = changed / "expert-1" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"expert-1/weights\.bin was changed"):
        Octavo.load(changed)


def test_a_provider_that_does_not_work_is_refused_or_its_fallback_recorded(bundle: Path) -> None:
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        from octavo.runtime.ort.providers import probe

        if probe("CUDAExecutionProvider").works:
            pytest.skip("CUDA works here")
    with pytest.raises(MachineError, match="cuda does not work here"):
        Octavo.load(bundle, provider="cuda")
    with Octavo.load(bundle, provider="cuda", allow_fallback=True) as octavo:
        result = octavo.ask("abc", max_new_tokens=2)
        assert result.provider == "CPUExecutionProvider"
        assert result.fallback is not None
        assert "cuda does not work here" in result.fallback


def test_devices_are_checked(bundle: Path) -> None:
    for devices, message in ((["gpu:0"], "'gpu:0' is not cpu"), (["cpu:0", "cpu:0"], "once"), (["cuda:0"], "cpu:0")):
        with pytest.raises(ConfigError, match=message):
            Octavo.load(bundle, provider="cpu", devices=devices)


def test_one_thread_and_one_lane_give_the_same_answers_as_several(bundle: Path, octavo: Octavo) -> None:
    expected = texts(octavo.ask("mids 1234:", seed=2))
    with Octavo.load(bundle, devices=["cpu:0"], threads=1, max_rows=2, max_step_tokens=5, context=40) as small:
        result = small.ask("mids 1234:", seed=2, max_new_tokens=20)
    assert [text[: len(other)] for text, other in zip(expected, texts(result), strict=True)] == texts(result)


def test_records_begin_with_how_to_run_the_load_again(bundle: Path) -> None:
    with Octavo.load(bundle, keep_records=True) as octavo:
        octavo.ask_many(["a", "b"], max_new_tokens=3)
        head, *records = octavo.records()
    assert isinstance(head, RunRecord)
    assert head.experts == ("expert-0", "expert-1")
    assert {model for models in head.devices.values() for model in models} == {"expert-0", "expert-1", "value"}
    assert len(records) > 10


def test_adapters_of_one_base_decode_in_one_batch_as_they_would_alone(
    make_bundle: Callable[..., Path],
) -> None:
    stacked, merged = (make_bundle(3, adapters=True, lora=kind) for kind in ("stacked", "merged"))
    with Octavo.load(merged) as octavo:
        expected = texts(octavo.ask("mids 1234:", temperature=0.0, max_new_tokens=12))
    with Octavo.load(stacked, keep_records=True) as octavo:
        assert len({id(engine) for lane in octavo.placed.lanes for engine in lane.engines.values()}) == 2
        result = octavo.ask("mids 1234:", temperature=0.0, max_new_tokens=12)
        steps = [record for record in octavo.records() if isinstance(record, StepRecord)]
    assert texts(result) == expected
    assert len(set(expected)) == 3
    assert max(step.decodes for step in steps) == 6


def test_a_permitted_fallback_is_recorded_wherever_results_are(bundle: Path) -> None:
    if probe(CUDA).works:
        pytest.skip("CUDA works here")
    with Octavo.load(bundle, provider="cuda", allow_fallback=True) as octavo:
        result = octavo.ask("abc", max_new_tokens=2)
        assert octavo.about["provider"] == result.provider == CPU
    assert result.fallback == octavo.about["fallback"]
    assert "cuda does not work here" in (result.fallback or "")
