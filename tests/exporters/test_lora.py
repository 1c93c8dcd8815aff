"""Adapters on a shared base: merged or stacked, each equals what PEFT computes, and rows of one batch may differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.exporters.export import export_bundle
from octavo.exporters.player import Player
from octavo.profiles.errors import BundleError
from octavo.profiles.manifest import verify_bundle
from tests.exporters.conftest import Maker

ATTENTION = ["q_proj", "v_proj"]
EVERYTHING = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_adapter(base: Path, folder: Path, seed: int, **changes: Any) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = {"r": 4, "lora_alpha": 12, "target_modules": EVERYTHING} | changes
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def adapters(make_model: Maker, tmp_path: Path) -> list[Path]:
    base = make_model("llama-heads-of-4")
    patterns = {r"layers\.1\..*q_proj": 9, "k_proj": 1, "model.layers.0.mlp.down_proj": 7, "p_proj": 100}
    kinds: list[dict[str, Any]] = [
        {"rank_pattern": {"down_proj": 5, r"layers\.1\..*q_proj": 3}, "alpha_pattern": patterns},
        {"r": 2, "target_modules": [*ATTENTION, "lm_head"]},
        {"use_rslora": True, "init_lora_weights": "gaussian"},
    ]
    return [make_adapter(base, tmp_path / f"tuned-{seed}", seed, **kind) for seed, kind in enumerate(kinds)]


@pytest.mark.parametrize("lora", ["merged", "stacked"])
def test_each_adapter_equals_peft(lora: Any, adapters: list[Path], tmp_path: Path) -> None:
    manifest = export_bundle(adapters, tmp_path / "bundle", lora=lora)
    verify_bundle(tmp_path / "bundle")
    assert [expert.name for expert in manifest.experts] == ["tuned-0", "tuned-1", "tuned-2"]
    for expert in manifest.experts:
        [weights] = expert.weights
        assert weights.parity is not None
        assert weights.parity.max_abs_error < 5e-5
        assert weights.parity.greedy_equal
    assert len({expert.weights[0].model for expert in manifest.experts}) == (1 if lora == "stacked" else 3)


def test_rows_of_one_call_may_be_different_experts(adapters: list[Path], tmp_path: Path) -> None:
    together = export_bundle(adapters, tmp_path / "stacked", verify=False)
    alone = export_bundle(adapters, tmp_path / "merged", lora="merged", verify=False)
    graph, ids, lengths = together.graphs[0], np.arange(3, 10)[None].repeat(3, 0), np.full(3, 7)
    assert graph.adapters == ["tuned-0", "tuned-1", "tuned-2"]
    mixed = Player(tmp_path / "stacked", together.experts[0].weights[0], graph, 3, 16, adapter=np.arange(3))
    ours = mixed.prefill(ids, lengths)
    for row, expert in enumerate(alone.experts):
        single = Player(tmp_path / "merged", expert.weights[0], alone.graphs[0], 1, 16)
        assert np.allclose(ours[row], single.prefill(ids[:1], lengths[:1])[0], atol=5e-5)


@pytest.mark.parametrize("precision", ["int4", "bf16"])
def test_adapters_stack_on_bases_of_any_precision(precision: Any, adapters: list[Path], tmp_path: Path) -> None:
    targets = ["cuda", "tensorrt"] if precision == "bf16" else ["cpu"]
    manifest = export_bundle(adapters, tmp_path / "bundle", precision=precision, targets=targets)
    assert all(weights.parity and weights.parity.passed for expert in manifest.experts for weights in expert.weights)


def test_adapters_of_sparse_layers_are_merged(make_model: Maker, tmp_path: Path) -> None:
    tuned = make_adapter(make_model("mixtral"), tmp_path / "tuned", 0, target_modules=["w1", "gate", "q_proj"])
    with pytest.raises(BundleError, match=r"layers\.0\.block_sparse_moe\.experts\.0\.w1 cannot be stacked"):
        export_bundle([tuned], tmp_path / "stacked")
    parity = export_bundle([tuned], tmp_path / "merged", lora="merged").experts[0].weights[0].parity
    assert parity is not None
    assert parity.greedy_equal


def test_merged_adapters_share_what_they_leave_alone(make_model: Maker, tmp_path: Path) -> None:
    base = make_model(vocab_size=700)
    tuned = [make_adapter(base, tmp_path / f"t{seed}", seed, target_modules=ATTENTION) for seed in range(2)]
    manifest = export_bundle(tuned, tmp_path / "bundle", lora="merged", verify=False)
    assert [file.path for file in manifest.files if file.path.startswith("shared/")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"peft_type": "IA3"}, r"adapter_config\.json: peft_type='IA3' is not supported"),
        ({"bias": "lora_only"}, "bias='lora_only' is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not supported"),
        ({"base_model_name_or_path": "nobody/nothing"}, "its base 'nobody/nothing' is not a folder here"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    changes: dict[str, Any], said: str, adapters: list[Path], tmp_path: Path
) -> None:
    path = adapters[0] / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(BundleError, match=said):
        export_bundle(adapters, tmp_path / "bundle")
