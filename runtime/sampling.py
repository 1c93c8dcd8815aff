"""How tokens are drawn: the settings of an inference, and its own stream of random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from numbers import Integral, Real

from octavo.profiles.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature first, then top-k, top-p and min-p narrow what is left; penalties come before all of them.

    `temperature` 0 is greedy. `repetition_penalty` divides the logits of tokens in the prompt or written so far (as
    Hugging Face does), `presence_penalty` is subtracted from those written so far (as OpenAI does).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value, kind = getattr(self, name), Integral if name == "top_k" else Real
            if not (isinstance(value, kind) and not isinstance(value, bool)) and (name, value) != ("top_k", None):
                raise ConfigError(f"sampling: {name} must be a {'whole ' * (kind is Integral)}number, got {value!r}")
        checks = {
            "temperature": (self.temperature, 0 <= self.temperature < 100, "in [0, 100)"),
            "top_k": (self.top_k, self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p, 0 < self.top_p <= 1, "in (0, 1]"),
            "min_p": (self.min_p, 0 <= self.min_p < 1, "in [0, 1)"),
            "repetition_penalty": (self.repetition_penalty, 0 < self.repetition_penalty < 100, "in (0, 100)"),
            "presence_penalty": (self.presence_penalty, -100 < self.presence_penalty < 100, "in (-100, 100)"),
        }
        for name, (value, right, allowed) in checks.items():
            if not right:
                raise ConfigError(f"sampling: {name} must be {allowed}, got {value}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def penalised(self) -> bool:
        return self.repetition_penalty != 1 or self.presence_penalty != 0


def stream_key(seed: int, number: int, model: str, sample: int) -> int:
    """The 64-bit key of an inference's random numbers: its own, whatever else is in the batch."""
    return int.from_bytes(blake2b(f"{seed}/{number}/{model}/{sample}".encode(), digest_size=8).digest(), "little")
