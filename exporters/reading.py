"""Which text an export reads: to compare a model with its original, and to measure the scales of its cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from octavo.exporters.checkpoint import Array, Checkpoint
from octavo.exporters.classifier import longest
from octavo.exporters.package import companion
from octavo.exporters.plan import Group, Member
from octavo.exporters.text import TEXT
from octavo.exporters.vocabulary import TOKENIZER_NAME
from octavo.profiles.errors import BundleError, ConfigError

TEXTS = 32  # sequences read of a text file, at most
TOKENS = 96  # of each, at most
ENOUGH = 768  # tokens read of a text file
DRAWN, WIDTH = 4, 64  # sequences and their tokens where no text was given
LEAST = 128  # tokens to measure scales on
VARIED = 24  # different tokens that a tokenizer must make of the text at hand for it to be worth reading
PAIRS = 6  # that a classifier reads
LONG = 512  # tokens of the longest of them, at most
SEED = 1


class Reading:
    """The text that models read: the file given, else tasks beside the checkpoint, else what comes along."""

    def __init__(self, text: Path | None):
        self._text = text
        self._found: dict[tuple[Path, int], tuple[list[Array], list[Array]]] = {}  # a text is read once
        if text is not None and not text.is_file():
            raise ConfigError(f"{text}: no such file to read parity text from")

    def compared(self, group: Group, member: Member) -> list[Array]:
        """The sequences of token ids that a model and its original both read."""
        return self._halves(group, member)[0]

    def measured(self, group: Group, member: Member) -> list[Array]:
        """Sequences to measure a cache's scales on: what comes after those compared; of a short text, all of it.

        Raises ConfigError where a text was given that is too short even so.
        """
        compared, after = self._halves(group, member)
        found = after if sum(map(len, after)) >= LEAST else [*compared, *after]
        if self._text is not None and (tokens := sum(map(len, found))) < LEAST:
            what = "too few to measure the scales of an int8 cache on"
            raise ConfigError(f"parity_text: {self._text}: {tokens} tokens are {what}; give {LEAST} or more")
        return found

    def judged(self, member: Member) -> list[tuple[Array, Array]]:
        """Pairs of text for a classifier that reads them whole: token ids and their types; the last is a long one."""
        checkpoint = member.checkpoint
        tokenizer, most = companion(TOKENIZER_NAME, checkpoint), min(LONG, longest(checkpoint))
        if tokenizer is None:
            return _random_pairs(checkpoint, most)
        encoder = Tokenizer.from_file(str(tokenizer))
        encoder.no_padding()
        encoder.enable_truncation(most)
        texts = (read_texts(self._text) if self._text else TEXT.split("\n\n"))[:PAIRS]
        halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts if len(text) > 1]
        found = [encoder.encode(first, second) for first, second in [*halves, (_repeated(texts, most), texts[0])]]
        return [(np.array(each.ids, np.int64), np.array(each.type_ids, np.int64)) for each in found if each.ids]

    def digest(self, group: Group, member: Member) -> str:
        """Equal for equal text to measure on."""
        return hashlib.sha256(b"".join(ids.tobytes() for ids in self.measured(group, member))).hexdigest()

    def _halves(self, group: Group, member: Member) -> tuple[list[Array], list[Array]]:
        length = min(TOKENS, min(graph.kv.max_length for graph in group.graphs if graph.kv) // 2)
        key = member.checkpoint.folder, length
        if key not in self._found:
            self._found[key] = self._read(member, length) or self._at_hand(group, member, min(WIDTH, length))
        return self._found[key]

    def _read(self, member: Member, length: int) -> tuple[list[Array], list[Array]] | None:
        """Of the text file's first lines, and of those after, by the model's own tokenizer."""
        folder, tokenizer = member.checkpoint.folder, companion(TOKENIZER_NAME, member.checkpoint)
        text = self._text or next(iter(sorted(folder.parent.glob("tasks/*.jsonl"))), None)
        if text is None or (tokenizer is None and self._text is None):
            return None
        if tokenizer is None:
            raise BundleError(f"{folder}: no tokenizer.json to read the parity text with")
        encode = Tokenizer.from_file(str(tokenizer)).encode
        rows = [np.array(encode(line).ids[:length]) for line in read_texts(text)[: 2 * TEXTS]]
        some, more = ([row for row in part if len(row) > 1] for part in (rows[:TEXTS], rows[TEXTS:]))
        first = upto(some, ENOUGH)
        if not first and self._text is not None:
            raise ConfigError(f"parity_text: {self._text}: no text of two tokens or more in it")
        return (first, upto([*some[len(first) :], *more], ENOUGH)) if first else None

    def _at_hand(self, group: Group, member: Member, length: int) -> tuple[list[Array], list[Array]]:
        """The text that comes along, or, for a tokenizer that makes nothing of it, tokens at random; ragged."""
        vocabulary, tokenizer = group.graphs[0].vocab_size, companion(TOKENIZER_NAME, member.checkpoint)
        ids = np.zeros(0, np.int64)
        if tokenizer is not None:
            ids = np.array(Tokenizer.from_file(str(tokenizer)).encode(TEXT).ids, np.int64)
        if len(ids) < DRAWN * length or len(np.unique(ids)) < VARIED or ids.max() >= vocabulary:
            ids = np.random.default_rng(SEED).integers(vocabulary, size=2 * DRAWN * length)
        first, after = np.split(ids, [DRAWN * length])
        rows = [row[: max(1, length - index)] for index, row in enumerate(first.reshape(DRAWN, length))]
        return rows, [after[start : start + length] for start in range(0, len(after), length)]


def _repeated(texts: Sequence[str], tokens: int) -> str:
    """Enough text for so many tokens."""
    text = " ".join(texts)
    return text * (1 + 8 * tokens // len(text))


def _random_pairs(checkpoint: Checkpoint, most: int) -> list[tuple[Array, Array]]:
    """Tokens at random, none of them the padding's, which some families count positions by."""
    random, pad = np.random.default_rng(SEED), checkpoint.config.get("pad_token_id")
    lengths = [*(max(2, most // (2 + row)) for row in range(PAIRS)), most]
    vocabulary = np.delete(np.arange(int(checkpoint.config["vocab_size"])), [] if pad is None else [pad])
    types = 1 if int(checkpoint.config.get("type_vocab_size") or 0) > 1 else 0
    return [(random.choice(vocabulary, n), np.repeat([0, types], [n // 2, n - n // 2])) for n in lengths]


def upto(rows: Sequence[Array], tokens: int) -> list[Array]:
    """The first rows, until so many tokens are reached."""
    return [row for row, before in zip(rows, np.cumsum([0, *map(len, rows)]), strict=False) if before < tokens]


def read_texts(path: Path) -> list[str]:
    """The texts of a .jsonl file (`text`, or `prompt` with `answer` or `reference`), or another's paragraphs."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl":
        return [part.strip() for part in content.split("\n\n") if part.strip()]
    records = [json.loads(line) for line in content.splitlines() if line.strip()]
    return [str(record.get("text") or _asked_and_answered(record)) for record in records]


def _asked_and_answered(record: dict[str, object]) -> str:
    return f"{record.get('prompt', '')}{record.get('answer') or record.get('reference') or ''}"
