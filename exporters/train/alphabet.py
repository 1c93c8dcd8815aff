"""One token per character: the tokenizer of the embedded default, saved as any Hugging Face tokenizer."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, processors
from transformers import PreTrainedTokenizerFast

from octavo.exporters.train.problems import Problem

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = string.digits + string.ascii_lowercase + " :"
IDS = {token: number for number, token in enumerate((*SPECIAL, *CHARACTERS))}
CHAT = "{{ bos_token }}{{ messages[-1]['content'] }}"


def prompt_rows(problems: Sequence[Problem]) -> torch.Tensor:
    """`bos` and the prompt of each problem; the prompts must be equally long, so nothing is padded."""
    return torch.tensor([[BOS, *_ids(problem.prompt)] for problem in problems])


def answer_rows(problems: Sequence[Problem]) -> torch.Tensor:
    """The right answer of each problem, and `eos`."""
    return torch.tensor([[*_ids(problem.reference), EOS] for problem in problems])


def _ids(text: str) -> list[int]:
    return [IDS[character] for character in text]


def save_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` and its companions. Encoding puts `bos` first; unknown characters become `unk`."""
    tokenizer = Tokenizer(models.BPE(vocab=IDS, merges=[], unk_token=SPECIAL[UNK]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[BOS]} $A", special_tokens=[(SPECIAL[BOS], BOS)]
    )
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[PAD],
        bos_token=SPECIAL[BOS],
        eos_token=SPECIAL[EOS],
        unk_token=SPECIAL[UNK],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT,
        model_max_length=64,
    ).save_pretrained(folder)
