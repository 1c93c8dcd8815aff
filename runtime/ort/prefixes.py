"""The KV of prompt prefixes that several prompts share, kept beside the rows while the ledger remembers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from octavo.runtime.core.scheduler import Prompt
from octavo.runtime.ort.cache import Cache

Resident = Callable[[int], bool]


class Prefixes:
    """Chunks of `tokens` tokens by name. The ledger decides what stays; ask it with `sweep` between two steps."""

    def __init__(self, cache: Cache, tokens: int) -> None:
        self._cache = cache
        self._tokens = tokens
        self._chunks: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._chunks)

    def sweep(self, resident: Resident) -> None:
        """Forget chunks that the ledger has given away."""
        for name in [name for name in self._chunks if not resident(name)]:
            del self._chunks[name]

    def restore(self, prompt: Prompt, row: int, length: int) -> None:
        """Put the first `length` tokens of a prompt into a row."""
        for index in range(-(-length // self._tokens)):
            start = index * self._tokens
            stop = min(start + self._tokens, length)
            self._cache.write(row, start, stop, self._chunks[prompt.prefix[index]][:, :, : stop - start])

    def save(self, prompt: Prompt, row: int, length: int) -> None:
        """Keep those of a prompt's chunks that its row holds whole and nobody has kept yet."""
        for index, name in enumerate(prompt.prefix[: length // self._tokens]):
            if name not in self._chunks:
                self._chunks[name] = self._cache.read(row, index * self._tokens, (index + 1) * self._tokens)
