"""From a call's outputs to the next token of each row and its log-probability."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.runtime.contents import Note, Tokens
from octavo.runtime.ort.binding import Outputs
from octavo.runtime.ort.rows import Row, Rows
from octavo.runtime.ort.sampling import Sampler, logsumexp, penalise
from octavo.runtime.ort.session import Model

Floats = NDArray[Any]
Placed = list[tuple[int, Row]]


class Drawing:
    """Draws for the rows of one model, whether its graph gives all logits or only the largest.

    A token's log-probability is the model's own: at temperature 1, before penalties, grammars and filters. It is not
    finite where the logits hold NaN or infinity, and where a row's grammar lets nothing follow. `ends` are the end
    tokens.
    """

    def __init__(self, model: Model, rows: Rows, ends: Sequence[int] = ()) -> None:
        self._rows = rows
        self._ends = np.array(ends, np.int64)
        self._values = "logits" if "logits" in model.outputs else "top_values"
        self.columns = model.width(self._values) or 0
        self._decoding, self._joining = Sampler(self.columns), Sampler(self.columns)
        self._every = np.arange(len(rows.settings))
        self._seen = -1

    def next(self, part: slice, outputs: Outputs) -> tuple[Tokens, Floats]:
        """Tokens int64 and log-probabilities of the rows in `part`; `outputs` holds theirs only."""
        rows, raw, ids = self._rows, outputs[self._values], outputs.get("top_ids")
        sampler = self._prepared(part)
        shaped = self._of(part, rows.shaped)
        values = self._shape(part, shaped, raw, ids) if shaped else raw
        columns, total = sampler.draw(values, rows.settings[part])
        if "logsumexp" in outputs:
            total = outputs["logsumexp"]
        elif shaped:
            total = logsumexp(raw)
        every = self._every[: len(columns)]
        tokens = columns if ids is None else ids[every, columns]
        logprobs = raw[every, columns] - total
        for at, row in shaped:
            if row.form is not None and np.isfinite(logprobs[at]):
                row.form.push(int(tokens[at]))
                logprobs[at] = np.nan if row.form.stuck else logprobs[at]
        for at, row in self._of(part, rows.noted):
            row.notes.append(note(row.request.noted or 0, float(logprobs[at]), raw[at] - total[at], _row(ids, at)))
        return tokens, logprobs

    def _of(self, part: slice, rows: Iterable[Row]) -> Placed:
        """Those of the rows that are in `part`, each with its place there."""
        places = [(self._rows.place[row.job] - part.start, row) for row in rows]
        return [(at, row) for at, row in places if 0 <= at < part.stop - part.start]

    def _prepared(self, part: slice) -> Sampler:
        """The sampler of the decoding rows looks at their settings only when the rows have changed."""
        if part.start == 0 and self._seen == self._rows.changes:
            return self._decoding
        sampler = self._joining if part.start else self._decoding
        sampler.prepare(self._rows.settings[part])
        if part.start == 0:
            self._seen = self._rows.changes
        return sampler

    def _shape(self, part: slice, shaped: Placed, raw: Floats, ids: Tokens | None) -> Floats:
        """The logits with penalties, and without the tokens that may not come."""
        values = raw.copy()
        for at, row in shaped:
            written, names = self._rows.new_tokens(part.start + at), _row(ids, at)
            if row.sampling.penalised:
                own = np.concatenate([row.prefix[len(row.prefix) - row.drawn :], written])
                values[at] = penalise(raw[at], row.sampling, row.prefix, own, names)
            barred = np.zeros(self.columns, bool)
            if row.form is not None:
                barred |= ~row.form.allowed()
            if len(written) < row.least:
                barred |= np.isin(np.arange(self.columns) if names is None else names, self._ends)
            if not barred.all():
                values[at][barred] = -np.inf
        return values


def _row(ids: Tokens | None, at: int) -> Tokens | None:
    return None if ids is None else ids[at]


def note(most: int, logprob: float, logprobs: Floats, ids: Tokens | None) -> Note:
    """A Note with the `most` likely tokens, of a row's log-probabilities [columns]; `ids` are the columns' tokens."""
    most = min(most, len(logprobs))
    best = np.argpartition(-logprobs, most - 1)[:most] if most else np.empty(0, np.intp)
    best = best[np.argsort(-logprobs[best], kind="stable")]
    tokens = best if ids is None else ids[best]
    return Note(logprob, tuple(tokens.tolist()), tuple(logprobs[best].tolist()))
