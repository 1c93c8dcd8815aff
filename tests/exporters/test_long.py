"""A text that fills the context, in pieces of any size, far past the sliding window, gives the original's logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from octavo.exporters.export import export_bundle
from octavo.exporters.player import Player
from tests.exporters.conftest import Maker
from tests.exporters.test_routes import make_foreign

PIECES = (1, 1, 2, 7, 20)  # tokens of one call
NAMES = [
    "mistral-window",
    "qwen2-windows",
    "gemma2",
    "gemma3",
    "phi3-longrope",
    "phi3-longrope beyond",
    "llama-rope-yarn",
    "traced",
    "traced-window",
]


MADE = {"traced-window": "mistral-window"}


@pytest.mark.parametrize("name", NAMES)
def test_a_text_as_long_as_the_context(name: str, make_model: Maker, tmp_path: Path) -> None:
    """The gate reads the beginning of a context only; here its last token is reached."""
    import torch
    from transformers import AutoModelForCausalLM

    beyond = 90 if name.endswith("beyond") else None  # of an original length of 64
    folder = make_foreign(tmp_path / "gpt2") if name == "traced" else make_model(MADE.get(name, name.split()[0]))
    route = "optimum" if name in MADE else "auto"
    manifest = export_bundle([folder], tmp_path / "bundle", verify=beyond is not None, max_length=beyond, route=route)
    [graph], random = manifest.graphs, np.random.default_rng(0)
    assert graph.kv is not None
    length = graph.kv.max_length
    assert length == beyond or name != "phi3-longrope beyond"
    ids, held, told = random.integers(97, size=length), 0, []
    player = Player(tmp_path / "bundle", manifest.experts[0].weights[0], graph, 2, length)
    while held < length:
        piece = ids[held : held + int(random.choice(PIECES))]
        told.append(player.chunk(0, piece, held))
        held += len(piece)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        whole = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    assert np.abs(np.concatenate(told) - whole).max() < 2e-5 * max(1.0, float(np.abs(whole).max()))
