"""What a caller may give: each option is checked at the door, where a wrong one costs nobody else anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from math import inf, isnan
from numbers import Integral, Real

import numpy as np

from octavo.profiles.errors import ConfigError
from octavo.runtime.contents import Message, Tokens
from octavo.runtime.sampling import Sampling

Prompt = str | Sequence[Message] | Sequence[int] | Tokens


def whole(key: str, value: object, least: int | None = None, most: float = inf) -> int:
    """A whole number in [least, most]; None: of any size. Raises ConfigError naming the key."""
    wrong = not isinstance(value, Integral) or isinstance(value, bool)
    if wrong or not (-inf if least is None else least) <= value <= most:  # type: ignore[operator]
        allowed = "" if least is None else f" of at least {least}" if most == inf else f" in [{least}, {most:g}]"
        raise ConfigError(f"{key}: must be a whole number{allowed}, got {value!r}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def seconds(key: str, value: object) -> float | None:
    """Seconds from now, or None. Raises ConfigError."""
    if value is None:
        return None
    if not isinstance(value, Real) or isnan(value) or value < 0:
        raise ConfigError(f"{key}: must be seconds, 0 or more, got {value!r}")
    return float(value)


def stops(value: object) -> tuple[str, ...]:
    """Stop strings, from one or several or none. Raises ConfigError."""
    given = (value,) if isinstance(value, str) else () if value is None else value
    if not isinstance(given, Sequence) or not all(isinstance(each, str) and each for each in given):
        raise ConfigError(f"stop: must be texts that are not empty, got {value!r}")
    return tuple(given)


def functions(**given: object) -> None:
    """Raises ConfigError where one is neither a function nor None."""
    for key, value in given.items():
        if value is not None and not callable(value):
            raise ConfigError(f"{key}: must be a function, got {value!r}")


def token_ids(prompt: object) -> Tokens | None:
    """A prompt that is given as token ids; None where it is something else. Raises ConfigError for a wrong array."""
    if isinstance(prompt, np.ndarray):
        if prompt.ndim != 1 or (prompt.size and not np.issubdtype(prompt.dtype, np.integer)):
            raise ConfigError(f"prompt: token ids are whole numbers in a row, got {prompt.dtype} {list(prompt.shape)}")
        return prompt.astype(np.int64)
    ids = isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes) and len(prompt) > 0
    if ids and all(isinstance(each, Integral) for each in prompt):  # type: ignore[attr-defined]
        return np.array(prompt, np.int64)
    return None


def words(prompt: object) -> str | Sequence[Message]:
    """A prompt that is a text or a conversation. Raises ConfigError for anything else."""
    if isinstance(prompt, str):
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"prompt: character {error.start} is half of one (a lone surrogate)") from None
        return prompt
    talk = isinstance(prompt, Sequence) and len(prompt) and all(isinstance(each, Mapping) for each in prompt)
    if not talk:
        raise ConfigError(f"prompt: must be a text, a list of messages, or token ids, got {type(prompt).__name__}")
    return prompt  # type: ignore[return-value]


def sampling(own: Sampling, given: object, whose: str = "ask") -> Sampling:
    """Some settings changed; `given` maps their names to values, or is a Sampling. Raises ConfigError."""
    if isinstance(given, Sampling):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{whose}: must be a Sampling, or a mapping of its fields, got {given!r}")
    known = [field.name for field in fields(Sampling)]
    if wrong := [str(name) for name in given if name not in known]:
        raise ConfigError(f"{whose}: no option {wrong[0]!r}; of sampling there are {', '.join(known)}")
    return replace(own, **given)


def not_one_text(prompts: object) -> None:
    """Raises ConfigError where a single text stands in place of several: its characters are no prompts."""
    if isinstance(prompts, str | bytes):
        raise ConfigError("ask_many: prompts: give a list of prompts; `ask` takes a single one")
