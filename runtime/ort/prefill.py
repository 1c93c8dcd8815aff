"""Computes prompts: whole ones in ragged batches, long ones chunk by chunk in rows set apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from octavo.runtime.contents import Tokens
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.runtime.ort.binding import Calls, Outputs
from octavo.runtime.ort.prefixes import Prefixes

Item = TypeVar("Item")
Read = Callable[[Prompt], tuple[Tokens, int]]
SLACK = 1.25  # padded tokens per real one that a batch may have
FREE = 64  # padded tokens that cost nothing


@dataclass(frozen=True, slots=True)
class Computed:
    """Prompts that are complete: number i lies in cache row `row + i`, its next token's outputs in row i."""

    chunks: Sequence[Chunk]
    row: int
    outputs: Outputs


class Prefiller:
    """Rows for whole prompts begin where the caller says; prompts under way keep a row at the cache's other end."""

    def __init__(self, calls: Calls, prefixes: Prefixes | None = None) -> None:
        self._calls = calls
        self._prefixes = prefixes
        self._rows: dict[Prompt, int] = {}
        self._free = list(range(calls.cache.rows))

    def __len__(self) -> int:
        """Prompts under way."""
        return len(self._rows)

    def run(self, chunks: Sequence[Chunk], read: Read, first_row: Callable[[], int]) -> Iterator[Computed]:
        """Compute a step's chunks; use or copy the rows that it gives before asking for the next.

        `read` gives a prompt's tokens and adapter, `first_row` the first row that no decoding sequence holds.
        """
        whole = [chunk for chunk in chunks if chunk.start == 0 and chunk.completes]
        for batch in batches(whole, self._calls.model.most):
            row = first_row()
            outputs = self._whole(row, [read(chunk.prompt) for chunk in batch])
            for index, chunk in enumerate(batch):
                self._keep(chunk, row + index)
            yield Computed(batch, row, outputs)
        for chunk in chunks:
            if chunk.start == 0 and chunk.completes:
                continue
            row = self._row_of(chunk)
            tokens, adapter = read(chunk.prompt)
            outputs = self._part(row, tokens[chunk.start : chunk.start + chunk.tokens], chunk.start, adapter)
            self._keep(chunk, row)
            if chunk.completes:
                yield Computed([chunk], row, outputs)
                self.forget(chunk.prompt)

    def forget(self, prompt: Prompt) -> None:
        """Free the row of a prompt under way, if it has one."""
        if (row := self._rows.pop(prompt, None)) is not None:
            self._free.append(row)
            self._free.sort()

    def _row_of(self, chunk: Chunk) -> int:
        """The row of a prompt under way; a new one begins with what is cached of the prompt."""
        prompt = chunk.prompt
        if prompt not in self._rows:
            self._rows[prompt] = self._free.pop()
            if chunk.start and self._prefixes is not None:
                self._prefixes.restore(prompt, self._rows[prompt], chunk.start)
        return self._rows[prompt]

    def _keep(self, chunk: Chunk, row: int) -> None:
        if chunk.prompt.prefix and self._prefixes is not None:
            self._prefixes.save(chunk.prompt, row, chunk.start + chunk.tokens)

    def _whole(self, row: int, prompts: Sequence[tuple[Tokens, int]]) -> Outputs:
        ids, lengths = padded([tokens for tokens, _ in prompts])
        return self._calls.prefill(row, ids, lengths, np.array([adapter for _, adapter in prompts], np.int64))

    def _part(self, row: int, tokens: Tokens, held: int, adapter: int) -> Outputs:
        if held:
            return self._calls.chunk(row, tokens, held, adapter)
        return self._calls.prefill(row, tokens[None], np.array([len(tokens)], np.int32), np.array([adapter], np.int64))


def batches(chunks: Sequence[Chunk], most: int | None = None) -> list[list[Chunk]]:
    """Whole prompts grouped by length, so that padding stays small, and `most` of them in a batch."""
    return alike(chunks, lambda chunk: chunk.tokens, most)


def padded(rows: Sequence[Tokens], pad: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Rows of unequal length as one array, padded on the right, and their lengths."""
    lengths = np.array([len(row) for row in rows], np.int32)
    filled = np.full((len(rows), int(lengths.max())), pad, np.int64)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = row
    return filled, lengths


def alike(items: Iterable[Item], length: Callable[[Item], int], most: int | None = None) -> list[list[Item]]:
    """Groups of at most `most`, shortest first, whose padding to the longest of each stays small."""
    groups: list[list[Item]] = []
    real = 0
    for item in sorted(items, key=length):
        real += length(item)
        full = not groups or len(groups[-1]) == most
        if not full and (len(groups[-1]) + 1) * length(item) <= SLACK * real + FREE:
            groups[-1].append(item)
        else:
            groups.append([item])
            real = length(item)
    return groups
