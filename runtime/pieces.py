"""Tokens one by one: the bytes that each stands for, and how likely the model found it and others in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from octavo.runtime.contents import Note


@dataclass(frozen=True, slots=True)
class Piece:
    """A token of a text: its bytes and its log-probability, and the likeliest tokens in its place, best first."""

    bytes: bytes
    logprob: float
    likely: tuple[Piece, ...] = ()

    @property
    def text(self) -> str:
        """What a reader sees of it; a token can be a part of a character."""
        return self.bytes.decode("utf-8", "replace")


def spelled(table: Sequence[bytes], tokens: Sequence[int], notes: Sequence[Note], text: str) -> Iterator[Piece]:
    """The tokens that begin within `text`: neither an end token nor what a stop string cut off."""
    room = len(text.encode("utf-8", "replace"))
    for token, note in zip(tokens, notes, strict=True):
        if room <= 0:
            return
        likely = (Piece(_at(table, each), logprob) for each, logprob in zip(note.ids, note.logprobs, strict=True))
        piece = Piece(_at(table, token), note.logprob, tuple(likely))
        room -= len(piece.bytes)
        yield piece


def _at(table: Sequence[bytes], token: int) -> bytes:
    return table[token] if 0 <= token < len(table) else b""  # graphs may have more logits than there are tokens


def byte_table(tokenizer: Any) -> list[bytes]:
    """What each id of a `tokenizers.Tokenizer` adds to a text; special tokens and gaps add nothing."""
    about = json.loads(tokenizer.to_str())
    kinds = set(_kinds(about.get("decoder")))
    added = {entry["id"]: entry for entry in about.get("added_tokens", ())}
    names = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * (max(names.values(), default=-1) + 1)
    for name, token in names.items():
        if token not in added:
            table[token] = _bytes(name, kinds)
        elif not added[token]["special"]:
            table[token] = name.encode()
    return table


def _kinds(decoder: dict[str, Any] | None) -> Iterator[str]:
    if decoder:
        yield decoder["type"]
        for each in decoder.get("decoders", ()):
            yield from _kinds(each)


def _bytes(name: str, kinds: set[str]) -> bytes:
    if "ByteLevel" in kinds:
        alphabet = byte_alphabet()
        return bytes(alphabet[each] for each in name) if all(each in alphabet for each in name) else name.encode()
    if "ByteFallback" in kinds and len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes.fromhex(name[3:5])
    return name.replace("▁", " ").encode() if kinds & {"Metaspace", "Replace"} else name.encode()


@cache
def byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in byte-level tokenizers (Radford et al. 2019, GPT-2's encoder.py)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}
