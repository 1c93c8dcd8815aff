"""The rows that decode: who is in which, and what each has written so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.runtime.contents import Note, Request, Tokens
from octavo.runtime.core.scheduler import Job
from octavo.runtime.grammar import Follower
from octavo.runtime.ort.sampling import SETTINGS
from octavo.runtime.sampling import Sampling
from octavo.runtime.text import Growing


@dataclass(slots=True, eq=False)
class Row:
    """One job's contents while it decodes, and while it waits to be computed again.

    `prefix` is what it read before it wrote, its last `drawn` tokens those of a candidate that it continues; `budget`
    is how many tokens it may write, before `least` no end token; `growing` follows its text where someone watches it,
    `form` where a grammar rules it. `notes` are of its own tokens.
    """

    job: Job
    request: Request
    prefix: Tokens
    sampling: Sampling
    settings: tuple[float, ...]
    budget: int
    growing: Growing | None = None
    form: Follower | None = None
    least: int = 0
    drawn: int = 0
    notes: list[Note] = field(default_factory=list)

    @property
    def shaped(self) -> bool:
        """Whether what it draws from are not the model's logits as they are."""
        return self.sampling.penalised or self.form is not None or self.least > 0

    @property
    def text(self) -> str | None:
        """The text as a stop string cut it; None where none did."""
        return self.growing.text if self.growing is not None and self.growing.stopped else None


class Rows:
    """Decoding rows 0 to `count`, kept without holes: whoever leaves is replaced by the last.

    Per row: `settings` for sampling, `written` tokens and the `budget` of them, `logprob`, the sum of their
    log-probabilities, `ends`, whether end tokens end it, `scores`, the value head's logits, and `tokens`, the ids
    themselves. `changes` counts who came and went.
    """

    def __init__(self, rows: int, length: int) -> None:
        self.count = 0
        self.changes = 0
        self.rows: list[Row] = []
        self.place: dict[Job, int] = {}
        self.settings = np.zeros(rows, SETTINGS)
        self.written = np.zeros(rows, np.int32)
        self.budget = np.zeros(rows, np.int32)
        self.logprob = np.zeros(rows, np.float64)
        self.ends = np.ones(rows, bool)
        self.scores = np.zeros(rows, np.float32)
        self.tokens = np.zeros((rows, length), np.int64)
        self.watched: list[Row] = []
        self.shaped: list[Row] = []
        self.noted: list[Row] = []
        self._every = np.arange(rows)

    def append(self, row: Row) -> int:
        """Give a row the next place; returns it."""
        place = self.count
        self.count += 1
        self.changes += 1
        self.rows.append(row)
        self.place[row.job] = place
        self.settings[place] = row.settings
        self.budget[place] = row.budget
        self.ends[place] = row.request.ends
        self.written[place] = 0
        self.logprob[place] = 0.0
        if row.growing is not None:
            self.watched.append(row)
        if row.shaped:
            self.shaped.append(row)
        if row.request.noted is not None:
            self.noted.append(row)
        return place

    def restore(self, place: int, tokens: Tokens, logprob: float) -> None:
        """Put back what the row wrote before it was preempted."""
        self.tokens[place, : len(tokens)] = tokens
        self.written[place] = len(tokens)
        self.logprob[place] = logprob
        self.settings["drawn"][place] += np.uint64(len(tokens))

    def remove(self, place: int) -> int | None:
        """Take a row out; returns the place whose cache belongs into the hole, None when there is none."""
        row = self.rows[place]
        for special in (self.watched, self.shaped, self.noted):
            if row in special:
                special.remove(row)
        del self.place[row.job]
        last = self.rows.pop()
        self.count -= 1
        self.changes += 1
        if last is row:
            return None
        self.rows[place] = last
        self.place[last.job] = place
        for array in (self.settings, self.written, self.budget, self.logprob, self.ends, self.scores):
            array[place] = array[self.count]
        written = self.written[place]
        self.tokens[place, :written] = self.tokens[self.count, :written]
        return self.count

    def book(self, part: slice, tokens: Tokens, logprobs: NDArray[Any]) -> None:
        """The rows in `part` wrote a token each."""
        self.tokens[self._every[part], self.written[part]] = tokens
        self.written[part] += 1
        self.logprob[part] += logprobs

    def new_tokens(self, place: int) -> Tokens:
        """A copy of what the row wrote."""
        return self.tokens[place, : self.written[place]].copy()
