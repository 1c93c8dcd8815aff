"""Scores of whole sequences in ragged batches: by a classifier that keeps no cache, or by a decoder's prefill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from octavo.runtime.ort.binding import Calls
from octavo.runtime.ort.cache import Cache
from octavo.runtime.ort.prefill import padded
from octavo.runtime.ort.session import Model

Encoded: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]  # token ids, and their types where there are any
Array = NDArray[Any]


class Scores(Protocol):
    """Gives the logit of each of at most `rows` sequences."""

    @property
    def rows(self) -> int: ...

    def __call__(self, sequences: Sequence[Encoded]) -> Array: ...


class Whole:
    """A classifier that reads each sequence at once, padded on the right and masked."""

    rows = 16

    def __init__(self, model: Model, pad: int) -> None:
        self._session = model.session
        self._inputs = [entry.name for entry in model.graph.inputs]
        self._pad = pad

    def __call__(self, sequences: Sequence[Encoded]) -> Array:
        ids, lengths = padded([ids for ids, _ in sequences], self._pad)
        types, _ = padded([types for _, types in sequences])
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return np.asarray(self._session.run(["score_logit"], {name: feeds[name] for name in self._inputs})[0])


class Prefilled:
    """A decoder's graph with its cache, of which only prefills are asked."""

    def __init__(self, model: Model, length: int, rows: int) -> None:
        self.rows = min(rows, model.most or rows)
        self._calls = Calls(model, Cache(model.kv, self.rows, length, model.device))

    def __call__(self, sequences: Sequence[Encoded]) -> Array:
        ids, lengths = padded([ids for ids, _ in sequences])
        outputs = self._calls.prefill(0, ids, lengths, np.zeros(len(ids), np.int64))
        return outputs["score_logit"].copy()
