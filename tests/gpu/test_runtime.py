"""On a GPU: the engine with its cache on the device writes what it writes on the CPU, and nothing falls back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from octavo.profiles.errors import ConfigError, MachineError
from octavo.profiles.manifest import read_manifest
from octavo.runtime.core.trace import StepRecord
from octavo.runtime.local import Octavo, Result
from octavo.runtime.ort.survey import survey

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA driver here")]
PROMPTS = ["a", "mids 52917340:", "0123456789" * 4, "the quick brown fox jumps over the lazy dog"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from octavo.exporters.export import export_bundle

    home = tmp_path_factory.mktemp("gpu")
    sizes = {"vocab_size": 128, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": 2}
    for seed, name in enumerate(("expert-0", "expert-1", "value")):
        torch.manual_seed(seed)
        kind = LlamaForSequenceClassification if name == "value" else LlamaForCausalLM
        labels = {"num_labels": 1, "pad_token_id": 0} if name == "value" else {}
        kind(LlamaConfig(**sizes, **heads, **labels)).save_pretrained(home / name)
        tokenizer = Tokenizer(models.BPE(vocab={chr(i): i for i in range(128)}, merges=[], unk_token=chr(3)))
        tokenizer.decoder = decoders.Fuse()
        tokenizer.save(str(home / name / "tokenizer.json"))
    experts = [home / "expert-0", home / "expert-1"]
    export_bundle(
        experts, home / "bundle", value=home / "value", targets=["cpu", "cuda"], precision="fp16", verify=False
    )
    return home / "bundle"


def texts(results: list[Result]) -> list[list[str]]:
    return [[candidate.text for candidate in result.candidates] for result in results]


def test_greedy_answers_are_those_of_the_cpu(bundle: Path) -> None:
    found = []
    for provider in ("cpu", "cuda"):
        with Octavo.load(bundle, provider=provider) as octavo:
            results = octavo.ask_many(PROMPTS * 3, temperature=0.0, max_new_tokens=40)
            assert {result.fallback for result in results} == {None}
            found.append(results)
    pairs = [
        (one, other)
        for ours, theirs in zip(found[0], found[1], strict=True)
        for one, other in zip(ours.candidates, theirs.candidates, strict=True)
    ]
    alike = [(one, other) for one, other in pairs if one.text == other.text]
    print(f"{len(alike)} of {len(pairs)} greedy texts are those of the CPU in fp16")
    assert len(alike) >= 0.75 * len(pairs)
    for one, other in alike:
        assert one.value == pytest.approx(other.value, abs=0.02)
        assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=0.02)


def test_chunks_forks_and_compaction_on_the_device_change_nothing(bundle: Path) -> None:
    with Octavo.load(bundle, provider="cuda") as roomy:
        expected = texts(roomy.ask_many(PROMPTS, temperature=0.0, max_new_tokens=30))
    with Octavo.load(bundle, provider="cuda", max_rows=5, max_step_tokens=9) as tight:
        assert texts(tight.ask_many(PROMPTS, temperature=0.0, max_new_tokens=30)) == expected


def test_recorded_calls_change_nothing_and_are_no_slower(bundle: Path) -> None:
    found, seconds = [], []
    for recorded in (False, True):
        with Octavo.load(bundle, provider="cuda", cuda_graphs=recorded, keep_records=True) as octavo:
            octavo.ask_many(PROMPTS * 2, temperature=0.0, max_new_tokens=40, ends=False)
            found.append(texts(octavo.ask_many(PROMPTS * 2, temperature=0.0, max_new_tokens=40, ends=False)))
            steps = [r for r in octavo.records() if isinstance(r, StepRecord) and not r.prefill_tokens]
        seconds.append(sorted(step.seconds for step in steps)[len(steps) // 2])
    assert found[0] == found[1]
    print(f"median decode step {seconds[0] * 1e6:.0f} us, recorded {seconds[1] * 1e6:.0f} us")
    assert seconds[1] < 1.2 * seconds[0]


def test_all_nodes_run_on_cuda_and_nothing_fell_back(bundle: Path) -> None:
    for found in survey(bundle, read_manifest(bundle), "cuda"):
        print(found)
        assert found.fallback is None
        assert found.nodes["CUDAExecutionProvider"] > 10


def test_exhausted_memory_is_explained(bundle: Path) -> None:
    with pytest.raises(MachineError, match="there is no memory"):
        Octavo.load(bundle, provider="cuda", max_rows=1 << 22, kv_bytes=1 << 50)


def test_the_gpu_is_chosen_where_it_works_and_a_wrong_device_is_refused(bundle: Path) -> None:
    with Octavo.load(bundle) as octavo:
        assert octavo.provider == "CUDAExecutionProvider"
    with pytest.raises(ConfigError, match="does not run CUDAExecutionProvider"):
        Octavo.load(bundle, devices=["cpu:0"])


def test_a_decode_step_is_fast(bundle: Path) -> None:
    """Bound once, updated in place: a step of a tiny model takes well under five milliseconds."""
    with Octavo.load(bundle, provider="cuda", keep_records=True) as octavo:
        octavo.ask_many(PROMPTS * 2, max_new_tokens=60, ends=False)
        steps = [record for record in octavo.records() if isinstance(record, StepRecord) and not record.prefill_tokens]
    seconds = sorted(step.seconds for step in steps)
    print(f"median decode step {seconds[len(seconds) // 2] * 1e6:.0f} us at up to {max(s.decodes for s in steps)} rows")
    assert seconds[len(seconds) // 2] < 5e-3
