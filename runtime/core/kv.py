"""The KV ledger: blocks in use, blocks that still hold something worth finding again, and when decodes will need more.

It counts; it never touches memory. Free blocks wait in one least-recently-used line. A run of them may still hold the
tokens of a hashed prefix or of a preempted job, and whoever needs those again takes them back out of the line. Blocks
at its end that hold nothing of the kind, which mostly are all, are but a number.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

Key: TypeAlias = tuple[str, int]


class KVLedger:
    """`capacity` blocks of `block_tokens` tokens each; hashes cover `hash_tokens` tokens (a multiple of a block)."""

    def __init__(self, capacity: int, block_tokens: int = 16, hash_tokens: int = 512, caching: bool = True) -> None:
        if capacity < 1 or block_tokens < 1:
            raise ValueError(f"a KV cache needs blocks of tokens, got {capacity} blocks of {block_tokens} tokens")
        if hash_tokens % block_tokens:
            raise ValueError(f"hash_tokens must be a multiple of {block_tokens} (block_tokens), got {hash_tokens}")
        self.capacity = capacity
        self.block_tokens = block_tokens
        self.hash_tokens = hash_tokens
        self.caching = caching
        self.used = 0
        self.blank = capacity  # blocks that nobody has used yet, or whose contents are lost
        self._line: OrderedDict[Key, int] = OrderedDict()
        self._loose = 0  # blocks given back after the last run that came into the line
        self._shared: dict[int, int] = {}
        self._forgotten = 0
        self._due = [0] * block_tokens
        self._rows = 0

    @property
    def free(self) -> int:
        """Blocks that may be taken; those that still hold cached tokens are among them."""
        return self.capacity - self.used

    def blocks(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_tokens)

    # Taking and giving back.

    def take(self, blocks: int) -> None:
        """Take free blocks: those that hold nothing first, then the least recently freed, whose contents are lost."""
        self.used += blocks
        if self.used > self.capacity:
            raise RuntimeError(f"KV ledger over capacity: {self.used} of {self.capacity} blocks")
        while blocks > self.blank:
            blocks -= self.blank
            self.blank = self._evict(blocks)
        self.blank -= blocks

    def _evict(self, wanted: int) -> int:
        """Forget what the oldest run holds; returns its blocks.

        A private run keeps its head where fewer are wanted; a hashed chunk is worth nothing unless whole.
        """
        if not self._line:
            loose, self._loose = self._loose, 0
            return loose
        key, held = self._line.popitem(last=False)
        if key[0] != "job" or held <= wanted:
            return held
        self._line[key] = held - wanted
        self._line.move_to_end(key, last=False)
        return wanted

    def give(self, blocks: int, owner: int | None = None) -> None:
        """Give blocks back. With an owner their tokens can be found again by `recall` until evicted."""
        if blocks <= 0:
            return
        self.used -= blocks
        if owner is None or not self.caching:
            self._loose += blocks
        else:
            key = ("job", owner)
            self._queue(key, self._line.pop(key, 0) + blocks)

    def _queue(self, key: Key, blocks: int) -> None:
        """Put a run into the line, behind all that was given back before it."""
        if self._loose:
            self._forgotten += 1
            self._line["", self._forgotten] = self._loose
            self._loose = 0
        self._line[key] = blocks

    # What a preempted job left behind.

    def remembered(self, owner: int) -> int:
        """Blocks of a preempted job that are still in the line."""
        return self._line.get(("job", owner), 0) if self._line else 0

    def recall(self, owner: int) -> int:
        """Take those blocks back, with what they hold."""
        blocks = self._line.pop(("job", owner), 0) if self._line else 0
        self.used += blocks
        return blocks

    # Prefixes that several prompts share.

    def cached_chunks(self, prefix: tuple[int, ...]) -> tuple[int, int]:
        """How many leading chunks are resident, and how many of those are in use (and so cost nothing)."""
        hits = in_use = 0
        for name in prefix:
            if name in self._shared:
                in_use += 1
            elif self._line.get(("hash", name), 0) * self.block_tokens < self.hash_tokens:
                break
            hits += 1
        return hits, in_use

    def resident(self, name: int) -> bool:
        """Whether a whole chunk of that name could be shared now."""
        return self.cached_chunks((name,))[0] == 1

    def holders(self, name: int) -> int:
        """How many prompts hold the chunk now."""
        return self._shared.get(name, 0)

    def share(self, name: int) -> bool:
        """Hold a resident chunk once more; False when it is not resident."""
        holders = self._shared.get(name, 0)
        if not holders:
            blocks = self._line.pop(("hash", name), 0)
            if not blocks:
                return False
            self.used += blocks
        self._shared[name] = holders + 1
        return True

    def publish(self, name: int) -> bool:
        """Offer a chunk just computed, already taken by its owner, to others; False when another owns one like it."""
        if not self.caching or name in self._shared:
            return False
        self._loose += self._line.pop(("hash", name), 0)
        self._shared[name] = 1
        return True

    def unshare(self, name: int) -> None:
        """Let go of a chunk; the last holder puts it into the line, whole."""
        holders = self._shared[name] - 1
        if holders:
            self._shared[name] = holders
            return
        del self._shared[name]
        blocks = self.hash_tokens // self.block_tokens
        self.used -= blocks
        self._queue(("hash", name), blocks)

    # What decoding rows will need: one block each time a row's length crosses a block's border.

    def enter(self, length: int, clock: int) -> None:
        """A row with `length` tokens of KV begins to decode at this clock."""
        self._due[(clock - length) % self.block_tokens] += 1
        self._rows += 1

    def leave(self, length: int, clock: int) -> None:
        """The row that entered with this length at this clock stops."""
        self._due[(clock - length) % self.block_tokens] -= 1
        self._rows -= 1

    def demand(self, clock: int, repeats: int = 1) -> int:
        """Blocks that all rows together need for `repeats` decode steps from this clock on."""
        due, size = self._due, self.block_tokens
        place = clock % size
        if repeats == 1:
            return due[place]
        wanted = repeats // size * self._rows
        for _ in range(repeats % size):
            wanted += due[place]
            place += 1
            if place == size:
                place = 0
        return wanted

    def steps_within(self, clock: int, blocks: int, most: int) -> int:
        """The largest number of decode steps, up to `most`, whose demand stays within so many blocks."""
        rows, size = self._rows, self.block_tokens
        if rows * (most // size + 1) <= blocks:  # even if every row began with a full block
            return most
        left, steps = blocks % rows, blocks // rows * size
        while steps < most:
            left -= self._due[(clock + steps) % size]
            if left < 0:
                return steps
            steps += 1
        return most
