"""A language model inside a multimodal checkpoint is exported as the language model that it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from octavo.exporters.export import export_bundle
from octavo.exporters.families import describe
from octavo.exporters.wrapper import language_config
from tests.exporters.conftest import MODELS, SIZES, Maker

SIGHT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma3": ("Gemma3", MODELS["gemma3"][1], "siglip_vision_model"),
    "mistral3": ("Mistral3", {"model_type": "mistral", "sliding_window": None}, "pixtral"),
    "llava": ("Llava", {"model_type": "llama"}, "clip_vision_model"),
}


def save_wrapped(kind: str, folder: Path) -> Path:
    import torch
    import transformers

    stem, differences, sight = KINDS[kind]
    changes = {"mm_tokens_per_image": 4} if kind == "gemma3" else {}
    config = getattr(transformers, f"{stem}Config")(
        text_config=SIZES | differences, vision_config=SIGHT | {"model_type": sight}, **changes
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{stem}ForConditionalGeneration")(config)
    for parameter in model.parameters():
        parameter.data.normal_(0.0 if parameter.ndim > 1 else 0.5, 0.1 if parameter.ndim > 1 else 0.3)
    model.save_pretrained(folder)
    return folder


def as_transformers_5(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    def name(old: str) -> str:
        inner = old.removeprefix("language_model.")
        return inner.replace("model.", "model.language_model.", 1) if inner != old else f"model.{old}"

    path = folder / "model.safetensors"
    save_file({name(old): tensor for old, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_multimodal_checkpoint_gives_its_language_model(kind: str, tmp_path: Path) -> None:
    folder = save_wrapped(kind, tmp_path / "model")
    first = export_bundle([folder], tmp_path / "first", route="native")
    as_transformers_5(folder)
    second = export_bundle([folder], tmp_path / "second", route="native")
    assert first.graphs[0].sha256 == second.graphs[0].sha256
    assert first.experts[0].parameters == second.experts[0].parameters
    for manifest in (first, second):
        parity = manifest.experts[0].weights[0].parity
        assert parity is not None
        assert parity.max_abs_error < 2e-5


def test_what_a_wrapper_does_not_say_is_what_transformers_takes() -> None:
    from transformers import Gemma3Config, Gemma3TextConfig, LlavaConfig

    bare: dict[str, Any] = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560}}
    full = Gemma3TextConfig(**bare["text_config"]).to_dict()
    assert describe(language_config(bare)) == describe(full)
    assert Gemma3Config(**bare).text_config.to_dict()["vocab_size"] == full["vocab_size"]
    bare = {"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 32064}}
    assert describe(language_config(bare)) == describe(LlavaConfig(**bare).text_config.to_dict())


def test_a_trunk_saved_alone_has_the_head_that_it_is_tied_to(make_model: Maker, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = make_model("llama", tie_word_embeddings=True)
    path = folder / "model.safetensors"
    whole = export_bundle([folder], tmp_path / "whole", verify=False)
    save_file({n.removeprefix("model."): t for n, t in load_file(path).items()}, path, metadata={"format": "pt"})
    trunk = export_bundle([folder], tmp_path / "trunk")
    assert [file for file in trunk.files if file.path.endswith(".bin")] == [
        file for file in whole.files if file.path.endswith(".bin")
    ]
