"""A full fine-tune that is low-rank is found, and serves as an adapter with the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from octavo.exporters.checkpoint import open_checkpoint
from octavo.exporters.export import export_bundle
from octavo.exporters.inspect import report
from octavo.exporters.lowrank import factored, find_low_rank, save_adapter
from octavo.exporters.player import Player
from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import verify_bundle
from tests.exporters.conftest import Maker
from tests.exporters.test_lora import make_adapter


def test_a_merged_fine_tune_is_found_to_be_low_rank(make_model: Maker, tmp_path: Path) -> None:
    base, tuned = make_model(), tmp_path / "tuned"
    adapter = make_adapter(base, tmp_path / "adapter", 1, target_modules=["q_proj", "down_proj"])
    merge(base, adapter, tuned)
    factors = find_low_rank(open_checkpoint(base), open_checkpoint(tuned))
    assert factors is not None
    assert {len(a) for a, _ in factors.values()} == {4}
    save_adapter(factors, base, tmp_path / "found")
    full = export_bundle([tuned], tmp_path / "full", verify=False)
    low = export_bundle([tmp_path / "found"], tmp_path / "low")
    ids, lengths = np.arange(3, 10)[None], np.array([7])
    logits = [
        Player(tmp_path / name, bundle.experts[0].weights[0], bundle.graphs[0], 1, 16).prefill(ids, lengths)
        for name, bundle in (("full", full), ("low", low))
    ]
    assert np.allclose(*logits, atol=1e-4)


def merge(base: Path, adapter: Path, folder: Path) -> Path:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload().save_pretrained(
        folder
    )
    return folder


def test_low_rank_fine_tunes_are_offered_and_on_request_stacked(make_model: Maker, tmp_path: Path) -> None:
    """Parity is against each fine-tune itself; a stranger among them stays a model of its own."""
    base, stranger = make_model(), make_model(seed=7)
    tuned = [
        merge(base, make_adapter(base, tmp_path / f"adapter-{seed}", seed), tmp_path / f"tuned-{seed}")
        for seed in (1, 2)
    ]
    said: list[str] = []
    experts = [*tuned, stranger]
    export_bundle(experts, tmp_path / "full", base=base, verify=False, progress=lambda p: said.append(p.note))
    assert any(note.startswith("tuned-1, tuned-2: seems to be the base and something of low rank") for note in said)
    export_bundle([base, *tuned], tmp_path / "unnamed", verify=False, progress=lambda p: said.append(p.note))
    assert any(f"tuned-1, tuned-2: seems to differ from {base.name} by something of low rank" in note for note in said)
    found = export_bundle(experts, tmp_path / "found", base=base, lora="detect")
    verify_bundle(tmp_path / "found")
    assert [expert.adapter for expert in found.experts] == [None, "tuned-1", "tuned-2"]
    for expert in found.experts:
        parity = expert.weights[0].parity
        assert parity is not None
        assert parity.reference == expert.source
        assert parity.greedy_equal


def test_detection_needs_a_base(make_model: Maker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora detect: name the model"):
        export_bundle([make_model()], tmp_path / "bundle", lora="detect")


def test_a_different_model_is_not_low_rank(make_model: Maker) -> None:
    one, other, wide = (
        open_checkpoint(make_model(seed=seed, vocab_size=size)) for seed, size in ((0, 97), (1, 97), (0, 98))
    )
    assert find_low_rank(one, other) is None
    assert find_low_rank(one, wide) is None
    assert find_low_rank(one, one) == {}


@pytest.mark.parametrize("rank", [1, 5, 16])
def test_factors_have_the_rank_of_the_change(rank: int) -> None:
    random = np.random.default_rng(rank)
    change = (random.normal(size=(200, rank)) @ random.normal(size=(rank, 120))).astype(np.float32)
    found = factored(change, 32, 1e-4)
    assert found is not None
    assert len(found[0]) == rank
    assert np.allclose(found[1] @ found[0], change, atol=1e-3)
    assert factored(random.normal(size=(200, 120)).astype(np.float32), 32, 1e-4) is None


def test_a_report_adds_up(make_model: Maker, tmp_path: Path) -> None:
    export_bundle([make_model(seed=seed) for seed in range(2)], tmp_path / "bundle", verify=False)
    data = report(tmp_path / "bundle")
    assert data["verified"] is False
    assert data["graphs"][0]["kv_bytes_per_token"] == 2 * 3 * 2 * 16 * 4
    assert data["bytes_if_not_shared"] == sum(expert["bytes"] for expert in data["experts"]) < data["bytes"]
