"""A tiny bundle of random weights, made by the exporter."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))
if not (find_spec("onnxruntime") and find_spec("tokenizers")):
    collect_ignore_glob = ["ort/*", "test_*.py"]  # what needs octavo[runtime]; tests of the core do not

CHARACTERS = '0123456789abcdefghijklmnopqrstuvwxyz :{}[]",.-_'
CONTEXT = 96
EXPORT = ("torch", "transformers", "onnx_ir")
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def save_tokenizer(folder: Path) -> None:
    """A character each, `bos` in front, and one chat template."""
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<bos>", "<eos>", "<unk>", *CHARACTERS]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template="{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}",
    ).save_pretrained(folder)


def save_model(
    folder: Path, seed: int, head: str = "ForCausalLM", broken: bool = False, window: int | None = None
) -> Path:
    """A Llama of random weights, or a Mistral with a sliding window; a broken one gives NaN."""
    import torch
    import transformers

    torch.manual_seed(seed)
    labels = {"num_labels": 1} if head != "ForCausalLM" else {}
    kind, windows = ("Mistral", {"sliding_window": window}) if window else ("Llama", {})
    config = getattr(transformers, f"{kind}Config")(**SIZES, **labels, **windows)
    model = getattr(transformers, f"{kind}{head}")(config)
    for parameter in model.parameters():
        parameter.data.normal_(0.0 if parameter.ndim > 1 else 1.0, 0.25 if parameter.ndim > 1 else 0.1)
    if broken:
        model.model.norm.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_adapter(base: Path, folder: Path, seed: int, broken: bool = False) -> Path:
    """A LoRA adapter of random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "up_proj"])
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.4)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_bundle(experts=2, broken=(), adapters=False, window=None, **options of the export): the bundle's folder."""

    def make(
        experts: int = 2,
        broken: Sequence[int] = (),
        adapters: bool = False,
        window: int | None = None,
        **options: Any,
    ) -> Path:
        for needed in EXPORT:
            pytest.importorskip(needed, reason="the test bundle is made with octavo[export]")
        from octavo.exporters.export import export_bundle

        home = tmp_path_factory.mktemp("bundle")
        save: Any = (
            partial(save_adapter, save_model(home / "base", 7)) if adapters else partial(save_model, window=window)
        )
        folders = [save(home / f"expert-{i}", i, broken=i in broken) for i in range(experts)]
        options = {"value": save_model(home / "value", 99, "ForSequenceClassification")} | options
        export_bundle(folders, home / "bundle", verify=False, **options)
        return home / "bundle"

    return make


@pytest.fixture(scope="session")
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle()
