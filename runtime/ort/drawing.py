"""From a call's outputs to the next token of each row and its log-probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.runtime.contents import Tokens
from octavo.runtime.ort.binding import Outputs
from octavo.runtime.ort.rows import Rows
from octavo.runtime.ort.sampling import Sampler, logsumexp, penalise
from octavo.runtime.ort.session import Model

Floats = NDArray[Any]


class Drawing:
    """Draws for the rows of one model, whether its graph gives all logits or only the largest.

    A token's log-probability is the model's own: at temperature 1, before penalties and filters. It is not finite where
    the logits hold NaN or infinity.
    """

    def __init__(self, model: Model, rows: Rows) -> None:
        self._rows = rows
        self._values = "logits" if "logits" in model.outputs else "top_values"
        self.columns = model.width(self._values) or 0
        self._decoding, self._joining = Sampler(self.columns), Sampler(self.columns)
        self._every = np.arange(len(rows.settings))
        self._seen = -1

    def next(self, part: slice, outputs: Outputs) -> tuple[Tokens, Floats]:
        """Tokens int64 and log-probabilities of the rows in `part`; `outputs` holds theirs only."""
        rows, raw = self._rows, outputs[self._values]
        sampler = self._prepared(part)
        values, penalised = self._with_penalties(part, raw, outputs.get("top_ids"))
        columns, total = sampler.draw(values, rows.settings[part])
        if "logsumexp" in outputs:
            total = outputs["logsumexp"]
        elif penalised:
            total = logsumexp(raw)
        every = self._every[: len(columns)]
        tokens = outputs["top_ids"][every, columns] if "top_ids" in outputs else columns
        return tokens, raw[every, columns] - total

    def _prepared(self, part: slice) -> Sampler:
        """The sampler of the decoding rows looks at their settings only when the rows have changed."""
        if part.start == 0 and self._seen == self._rows.changes:
            return self._decoding
        sampler = self._joining if part.start else self._decoding
        sampler.prepare(self._rows.settings[part])
        if part.start == 0:
            self._seen = self._rows.changes
        return sampler

    def _with_penalties(self, part: slice, raw: Floats, ids: Tokens | None) -> tuple[Floats, bool]:
        places = [(self._rows.place[row.job], row) for row in self._rows.penalised]
        mine = [(place, row) for place, row in places if part.start <= place < part.stop]
        if not mine:
            return raw, False
        values = raw.copy()
        for place, row in mine:
            at = place - part.start
            written = self._rows.new_tokens(place)
            values[at] = penalise(raw[at], row.sampling, row.prefix, written, None if ids is None else ids[at])
        return values, True
