"""Text and tokens: a bundle's tokenizer, chat templates, and text that grows token by token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Encoding, Tokenizer

from octavo.profiles.errors import BundleError, ConfigError
from octavo.runtime.contents import Message, Tokens
from octavo.runtime.pieces import byte_table

UNFINISHED = "�"  # what a decoder gives for bytes that are not yet a character


class Vocabulary:
    """The tokenizer of one model folder, with its end tokens and its chat template."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise BundleError(f"{folder}: no tokenizer.json, so no text can be read or written with this model")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise BundleError(f"{path}: not a tokenizer: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._config = _read_json(folder / "tokenizer_config.json")
        self.ends = end_tokens(folder)
        self._template = _read_template(folder, self._config)

    @property
    def has_chat(self) -> bool:
        return self._template is not None

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return int(self._tokenizer.get_vocab_size())

    @cached_property
    def bytes(self) -> list[bytes]:
        """What each token id adds to a text; special tokens add nothing."""
        return byte_table(self._tokenizer)

    def encode(self, text: str, *, special: bool = True) -> Tokens:
        """Token ids; `special` adds what the tokenizer's post-processor says, such as a first `bos`."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=special).ids, np.int64)

    def decode(self, tokens: Sequence[int] | Tokens) -> str:
        """The text, without special tokens."""
        return str(self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=True))

    def chat(self, messages: Sequence[Message]) -> Tokens:
        """A conversation as the model wants it, ready for its answer. Raises ConfigError without a template."""
        return self.encode(self.rendered(messages, answer_next=True), special=False)

    def rendered(self, messages: Sequence[Message], *, answer_next: bool) -> str:
        """A conversation as text, ready for an answer if one comes next. Raises ConfigError without a template."""
        if self._template is None:
            raise ConfigError("chat: the bundle's tokenizer has no chat template; give a plain prompt")
        special = {key: _plain(value) for key, value in self._config.items() if key.endswith("_token")}
        try:
            return self._compiled.render(messages=list(messages), add_generation_prompt=answer_next, **special)
        except Exception as error:  # a template is a stranger's program
            raise ConfigError(f"chat: the bundle's chat template failed: {error}") from None

    def cut(self, length: int, *, pair: bool) -> None:
        """From now on `read` gives at most so many tokens: the text, or the first of a pair, loses its start."""
        self._tokenizer.enable_truncation(length, strategy="only_first" if pair else "longest_first", direction="left")

    def read(self, text: str, second: str | None = None, *, special: bool = True) -> Encoding:
        """A text, or a pair of them, as the tokenizer's post-processor has it: ids, types, what was cut off."""
        return self._tokenizer.encode(text, second, add_special_tokens=special)

    @cached_property
    def _compiled(self) -> Template:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        return environment.from_string(self._template or "")


class Growing:
    """The text of tokens that arrive one by one; a character whose bytes are incomplete waits for the rest.

    A stop string ends it: `stopped` is then true and `text` is what stands before the stop string.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = ()) -> None:
        self._vocabulary = vocabulary
        self._stop = stop
        self._tokens: list[int] = []
        self._settled = 0  # tokens before this one are decoded for good
        self._read = 0  # tokens whose text is in `text`
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; returns the text that is certain by now and was not before."""
        before = self._certain
        self._tokens.append(token)
        decode = self._vocabulary.decode
        known = decode(self._tokens[self._settled : self._read])
        grown = decode(self._tokens[self._settled :])
        if len(grown) > len(known) and not grown.endswith(UNFINISHED):
            start = max(0, len(self.text) - max(map(len, self._stop), default=0))
            self.text += grown[len(known) :]
            self._settled, self._read = self._read, len(self._tokens)
            self._cut(start)
        return self.text[before : self._certain]

    def begin(self, tokens: Tokens) -> None:
        """Start behind tokens that were written before."""
        for token in tokens:
            self.push(int(token))

    def rest(self) -> str:
        """The text that was held back: it might have become a stop string, or a whole character."""
        held = self.text[self._certain :]
        if self.stopped:
            return held
        known = self._vocabulary.decode(self._tokens[self._settled : self._read])
        return held + self._vocabulary.decode(self._tokens[self._settled :])[len(known) :]

    @property
    def _certain(self) -> int:
        """Characters that no stop string can still swallow."""
        if self.stopped:
            return len(self.text)
        held = (n for stop in self._stop for n in range(1, len(stop)) if self.text.endswith(stop[:n]))
        return len(self.text) - max(held, default=0)

    def _cut(self, start: int) -> None:
        found = [at for at in (self.text.find(stop, start) for stop in self._stop) if at >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True


def end_tokens(folder: Path) -> tuple[int, ...]:
    """The ids that end a text, from generation_config.json or config.json."""
    for name in ("generation_config.json", "config.json"):
        ids = _read_json(folder / name).get("eos_token_id")
        if ids is not None:
            return tuple(ids) if isinstance(ids, list) else (int(ids),)
    return ()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def _read_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((each["template"] for each in template if each.get("name") == "default"), None)
    return template


def _plain(token: Any) -> Any:
    """Special tokens are written as text, or as an object that holds it."""
    return token["content"] if isinstance(token, dict) and "content" in token else token


def _refuse(message: str) -> None:
    raise ValueError(message)
