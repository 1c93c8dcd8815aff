"""One tokenizer for all: whether the models of a bundle read text alike, however their files were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

TOKENIZER_NAME = "tokenizer.json"
OLDER = ("vocab.json", "vocab.txt", "tokenizer.model", "spm.model", "spiece.model", "sentencepiece.bpe.model")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What was found out about the tokenizers of a bundle's models.

    `common` is the one file to give to all of them, where theirs say the same in other words: saved by another
    version, or with other padding and truncation. `different` are those that read otherwise than the first;
    `note` is for the user, empty where all is well.
    """

    common: bytes | None = None
    note: str = ""
    different: tuple[str, ...] = ()


def compare(tokenizers: Mapping[str, Path]) -> Vocabulary:
    """Compare the tokenizer files of models, by name; models without one are not among them."""
    if len({path.read_bytes() for path in tokenizers.values()}) < 2:
        return Vocabulary()
    plain = {name: _plain(path) for name, path in tokenizers.items()}
    first = next(iter(plain))
    different = [name for name, content in plain.items() if content != plain[first]]
    if not different:
        return Vocabulary(plain[first])
    names = ", ".join(different)
    return Vocabulary(
        note=f"{names}: another tokenizer than {first}'s; a bundle whose models differ in it cannot be served",
        different=tuple(different),
    )


def _plain(path: Path) -> bytes:
    """A tokenizer as its library writes it, without padding and truncation; a file that it cannot read, as it is."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception:  # the library raises plain Exception
        return path.read_bytes()
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return bytes(tokenizer.to_str(pretty=True), "utf-8")


def converted(folder: Path) -> bytes | None:
    """The tokenizer that transformers makes of older files; None where there are none, or it cannot."""
    if not any((folder / name).is_file() for name in OLDER):
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except Exception:  # of transformers and what it converts with: anything
        return None
    return bytes(tokenizer.to_str(pretty=True), "utf-8")
