"""Text of a given form: which tokens may come next, by llguidance (an extra), for each inference on its own."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from octavo.profiles.errors import ConfigError
from octavo.runtime.contents import Tokens

if TYPE_CHECKING:
    from octavo.runtime.text import Vocabulary

Form = Mapping[str, Any] | str
KEPT = 32  # compiled grammars of one tokenizer
AHEAD, TRIES = 4, 64  # tokens that some text must reach, unless that many beginnings leave it open
SHOWN = 200  # characters of what the library says is wrong
DEFAULTS = {"whitespace_pattern": " ?"}  # free white space would let a model write nothing else


def grammar_source(form: Form) -> str:
    """The grammar of a JSON Schema (a mapping), or a grammar in llguidance's Lark form (a text), as llguidance's text.

    A keyword of a schema that cannot be held is an error, never ignored. Raises ConfigError, and where the extra is
    missing too.
    """
    matcher = _library().LLMatcher
    if isinstance(form, str):
        return str(matcher.grammar_from_lark(form))
    try:
        return str(matcher.grammar_from_json_schema(json.dumps(form), defaults=DEFAULTS))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"grammar: not a JSON Schema: {str(error)[:SHOWN]}") from None


def _library() -> Any:
    try:
        import llguidance
    except ModuleNotFoundError:
        raise ConfigError("grammar: llguidance is not installed; install octavo[grammar]") from None
    return llguidance


def _goes_on(matcher: Any, tokens: int, tries: list[int]) -> bool:
    """Whether so many more tokens can follow, or the text be whole before; true where `tries` are used up."""
    if matcher.is_error():
        return False
    if not tokens or matcher.is_accepting():
        return True
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    for token in np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist():
        tries[0] -= 1
        if tries[0] < 0:
            return True
        after = matcher.deep_copy()
        after.consume_token(token)
        if _goes_on(after, tokens - 1, tries):
            return True
    return False


class Follower:
    """Follows one text through its grammar."""

    def __init__(self, matcher: Any, columns: int) -> None:
        self._matcher = matcher
        self._columns = columns
        self.stuck = False

    def allowed(self) -> NDArray[np.bool_]:
        """Of each token id below `columns`, whether it may come next. Where none may, `stuck` is true from then on."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask = np.zeros(self._columns, np.bool_)
        known = np.unpackbits(bits, bitorder="little")[: self._columns]
        mask[: len(known)] = known
        self.stuck = bool(self._matcher.is_error()) or not mask.any()
        return mask

    def push(self, token: int) -> None:
        """The text goes on with a token."""
        self._matcher.consume_token(token)
        self.stuck = self.stuck or bool(self._matcher.is_error())

    @property
    def whole(self) -> bool:
        """Whether the text is of its form and nothing may follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()


class Grammars:
    """The grammars of one tokenizer, each compiled once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        library = _library()
        self._new = library.LLMatcher
        self._tokenizer = library.LLTokenizer(_Words(vocabulary), eos_token=list(vocabulary.ends) or None)
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._lock = Lock()

    def check(self, source: str) -> None:
        """Raise ConfigError where the grammar is wrong, too large, or every text ends in a blind alley soon."""
        matcher = self._compile(source)
        problem = matcher.get_error()
        if not problem and not _goes_on(matcher.deep_copy(), AHEAD, [TRIES]):
            problem = "such a text cannot be begun with the tokens of the bundle's tokenizer"
        if problem:
            raise ConfigError(f"grammar: {problem.splitlines()[0][:SHOWN]}")

    def follow(self, source: str, columns: int, written: Tokens | None = None) -> Follower:
        """Follow a new text, or one of which some is written; `columns` is how many token ids a model tells apart."""
        follower = Follower(self._compile(source).deep_copy(), columns)
        for token in () if written is None else written.tolist():
            follower.push(token)
        return follower

    def _compile(self, source: str) -> Any:
        with self._lock:
            found = self._compiled.pop(source, None) or self._new(self._tokenizer, source, log_level=0)
            self._compiled[source] = found
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
            return found


class _Words:
    """A vocabulary in the form that llguidance takes."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = vocabulary.bytes
        self.special_token_ids = [token for token, spelled in enumerate(self.tokens) if not spelled]
        self.eos_token_id = vocabulary.ends[0] if vocabulary.ends else len(self.tokens) - 1
        self._encode = vocabulary.encode

    def __call__(self, text: bytes | str) -> list[int]:
        words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return [int(token) for token in self._encode(words, special=False)]


_OPEN: WeakKeyDictionary[Vocabulary, Grammars] = WeakKeyDictionary()
_OPENING = Lock()


def grammars_of(vocabulary: Vocabulary) -> Grammars:
    """Made when first asked for, which takes a while for a large vocabulary. Raises ConfigError without the extra."""
    with _OPENING:
        if vocabulary not in _OPEN:
            _OPEN[vocabulary] = Grammars(vocabulary)
        return _OPEN[vocabulary]
