"""The nouns of a recording: its requests, what is known of the engine, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its tokens, and seconds on the recording's clock. `first_token` is None where it was not noted.

    `cached_tokens` of the prompt were found in the server's cache.
    """

    arrival: float
    prompt_tokens: int
    answer_tokens: int
    first_token: float | None
    ended: float
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.answer_tokens < 1:
            raise ValueError(
                f"{self.prompt_tokens} prompt and {self.answer_tokens} answer tokens: at least one of each"
            )
        if not 0 <= self.cached_tokens < self.prompt_tokens:
            raise ValueError(
                f"{self.cached_tokens} of {self.prompt_tokens} prompt tokens cached: at least one is computed"
            )
        first = self.arrival if self.first_token is None else self.first_token
        if not self.arrival <= first <= self.ended < float("inf"):
            raise ValueError(
                f"times must not go back: arrival {self.arrival:g} s, first token {first:g} s, end {self.ended:g} s"
            )


@dataclass(frozen=True, slots=True)
class Engine:
    """Settings of the server and its placement by their keys in a scenario, and what it calls its model and device.

    `notes` say what of it a scenario has no key for.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    placement: Mapping[str, int] = field(default_factory=dict)
    model: str | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Served:
    """Requests in the order of their arrival, which is at zero for the first. `notes` say what was left out."""

    name: str
    requests: tuple[Request, ...]
    engine: Engine = Engine()
    notes: tuple[str, ...] = ()

    def records(self, model: str) -> Iterator[Record]:
        """The measured trace, as if `model` were the one expert of every query."""
        for number, r in enumerate(self.requests):
            tokens = r.prompt_tokens, r.answer_tokens
            yield QueryRecord(number, r.arrival, *tokens, r.first_token, r.ended, chosen=f"{model}/0", candidates=1)
            yield InferenceRecord(number, model, 0, False, "measured", *tokens, r.arrival, None, r.first_token, r.ended)


def served(name: str, requests: list[Request], engine: Engine, notes: tuple[str, ...] = ()) -> Served:
    """Requests in order, on a clock that begins with the first."""
    ordered = sorted(requests, key=lambda request: request.arrival)
    start = ordered[0].arrival
    return Served(
        name,
        tuple(
            replace(
                r,
                arrival=r.arrival - start,
                first_token=None if r.first_token is None else r.first_token - start,
                ended=r.ended - start,
            )
            for r in ordered
        ),
        engine,
        notes,
    )
