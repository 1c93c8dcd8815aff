"""What the native route does not know goes through Optimum into the same contract; each is the other's oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octavo.exporters.export import export_bundle
from octavo.exporters.progress import ExportProgress
from octavo.profiles.errors import BundleError
from octavo.profiles.manifest import verify_bundle
from tests.exporters.conftest import Maker


def make_foreign(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A GPT-2: learned positions, layer norms; nothing that the native route has."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    sizes = {"vocab_size": 97, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 96}
    GPT2LMHeadModel(GPT2Config(**sizes | changes, initializer_range=0.3)).save_pretrained(folder)
    return folder


def test_an_unknown_architecture_is_traced_and_held_to_the_same_gate(tmp_path: Path) -> None:
    """Ragged prefill, chunks and decoding through the contract of the native graphs; one graph for both experts."""
    folders = [make_foreign(tmp_path / f"gpt2-{seed}", seed) for seed in range(2)]
    manifest = export_bundle(folders, tmp_path / "bundle")
    verify_bundle(tmp_path / "bundle")
    [graph] = manifest.graphs
    assert graph.route == "optimum"
    assert [entry.name for entry in graph.inputs][:4] == ["input_ids", "lengths", "total_length", "logit_positions"]
    for expert in manifest.experts:
        parity = expert.weights[0].parity
        assert parity is not None
        assert parity.max_abs_error < 1e-3
        assert parity.greedy_equal


ODD: dict[str, dict[str, Any]] = {
    "starcoder2": {"num_key_value_heads": 2},  # not known to Optimum
    "nemotron": {"num_key_value_heads": 2, "head_dim": 12},  # described there without its positions
    "falcon": {"alibi": True},  # traced there by another attention than the original's
    "mpt": {"d_model": 48, "n_layers": 2, "n_heads": 4, "max_seq_len": 96},  # goes by distances between places
}


@pytest.mark.parametrize("kind", ODD)
def test_families_that_optimum_does_not_get_right_are_traced_all_the_same(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
    more = {"num_attention_heads": 4, "max_position_embeddings": 96, "initializer_range": 0.3}
    config = AutoConfig.for_model(kind, **sizes | more | ODD[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / kind)
    manifest = export_bundle([tmp_path / kind], tmp_path / "bundle")
    parity = manifest.experts[0].weights[0].parity
    assert parity is not None
    assert parity.max_abs_error < 1e-3
    assert parity.greedy_equal
    assert manifest.graphs[0].route == "optimum"


def test_what_a_trace_has_fixed_is_no_riddle(tmp_path: Path) -> None:
    """Experts whose shares of the tokens were traced as numbers: the graph runs for its example alone."""
    from transformers import GraniteMoeConfig, GraniteMoeForCausalLM

    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
    GraniteMoeForCausalLM(GraniteMoeConfig(**sizes | heads)).save_pretrained(tmp_path / "moe")
    with pytest.raises(BundleError, match="the traced graph does not run"):
        export_bundle([tmp_path / "moe"], tmp_path / "bundle")


def test_an_interrupted_trace_keeps_what_was_finished(tmp_path: Path) -> None:
    folders = [make_foreign(tmp_path / f"gpt2-{seed}", seed, n_layer=1) for seed in range(2)]
    written: list[str | None] = []

    def stop(progress: ExportProgress) -> None:
        if progress.stage == "weights":
            written.append(progress.model)
            if len(written) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(folders, tmp_path / "bundle", progress=stop, verify=False)
    export_bundle(folders, tmp_path / "bundle", progress=stop, verify=False)
    assert written == ["gpt2-0", "gpt2-1", "gpt2-1"]


def test_the_two_routes_agree(make_model: Maker, tmp_path: Path) -> None:
    manifest = export_bundle([make_model("qwen3")], tmp_path / "bundle", route="optimum")
    parity = manifest.experts[0].weights[0].parity
    assert parity is not None
    assert parity.max_abs_error < 2e-5
    assert manifest.graphs[0].route == "optimum"


def test_a_forced_route_does_not_give_way(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="model_type 'gpt2' is not supported"):
        export_bundle([make_foreign(tmp_path / "gpt2")], tmp_path / "bundle", route="native")


def test_what_the_traced_route_does_not_have_is_said(make_model: Maker, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the optimum route exports all logits in fp32"):
        export_bundle([make_model()], tmp_path / "bundle", route="optimum", precision="int4")
    with pytest.raises(BundleError, match="model_type 'gpt2' is not supported"):
        export_bundle([make_foreign(tmp_path / "gpt2")], tmp_path / "bundle", precision="int4")


def test_a_traced_model_may_read_beyond_its_window_and_says_why_it_is_traced(make_model: Maker, tmp_path: Path) -> None:
    """Rows of different lengths share the cache's places: the gate reads them together, far past the window."""
    notes: list[str] = []
    folder = make_model("mistral-window", hidden_act="quick_gelu")
    manifest = export_bundle([folder], tmp_path / "bundle", progress=lambda p: notes.append(p.note))
    kv = manifest.graphs[0].kv
    assert kv is not None
    assert kv.max_length == 96
    assert "traced by Optimum in fp32, context of 96 tokens: " in notes[1]
    assert "hidden_act='quick_gelu' is not supported" in notes[1]


def test_a_model_that_no_route_takes_is_refused_with_both_reasons(make_model: Maker, tmp_path: Path) -> None:
    folder = make_model()
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": "1e-5"}))
    said = r"rms_norm_eps must be a positive number, got '1e-5'\. .*: Optimum cannot trace it: TypeError"
    with pytest.raises(BundleError, match=said):
        export_bundle([folder], tmp_path / "bundle")
