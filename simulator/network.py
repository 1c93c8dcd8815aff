"""Messages between tiers: propagation, jitter, loss, and a link that sends one message at a time in each direction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from octavo.profiles.link import Link

CLIENT = "client"
BYTES_PER_TOKEN = 4.0
"""Of text, UTF-8 English; what tokenizers of 32k to 256k entries give."""
ENVELOPE = 600.0
"""Bytes of headers and JSON around a message."""
AHEAD = 256
"""Jitter is drawn for so many messages at once: one by one, drawing takes longer than all else about a message."""


class Way:
    """One direction of a link. Its random numbers are its own: what is sent the other way does not change them."""

    __slots__ = ("_drawn", "_free_at", "_jitter", "_link", "_next", "_random", "_up", "bytes_sent", "half")

    def __init__(self, link: Link, random: np.random.Generator, *, up: bool) -> None:
        self.bytes_sent = 0.0
        self.half = link.rtt / 2
        self._link = link
        self._random = random
        self._up = up
        self._free_at = 0.0
        self._drawn: list[float] = []
        self._next = 0

    def arrival(self, now: float, payload: float) -> float:
        self.bytes_sent += payload
        sending = self._link.seconds(payload, up=self._up) - self.half
        sent = max(now, self._free_at) + sending
        self._free_at = sent
        return sent + self.half + self._delay()

    def _delay(self) -> float:
        """Jitter, never negative, and one more round trip for each time that the message is lost."""
        link = self._link
        if 0 < link.loss < 1:
            late = abs(self._random.normal(0.0, link.jitter / 2)) if link.jitter else 0.0
            return float(late + (self._random.geometric(1 - link.loss) - 1) * link.rtt)
        if not link.jitter:
            return 0.0
        if self._next == len(self._drawn):
            self._drawn = np.abs(self._random.normal(0.0, link.jitter / 2, AHEAD)).tolist()
            self._next = 0
        self._next += 1
        return self._drawn[self._next - 1]


class Network:
    """Links by the two places that they connect. Without a link, two places are one: a message takes no time."""

    def __init__(
        self, links: Mapping[frozenset[str], Link] | None = None, seed: np.random.SeedSequence | None = None
    ) -> None:
        self.seed = seed or np.random.SeedSequence(0)
        self._ways: dict[str, dict[str, Way]] = {}
        for (one, other), link in ((sorted(places), link) for places, link in (links or {}).items()):
            for start, end in ((one, other), (other, one)):
                self._ways.setdefault(start, {})[end] = Way(link, self._stream(start, end), up=start == CLIENT)

    def _stream(self, start: str, end: str) -> np.random.Generator:
        key = (*self.seed.spawn_key, _number(start), _number(end))
        return np.random.default_rng(np.random.SeedSequence(self.seed.entropy, spawn_key=key))

    @property
    def bytes_sent(self) -> dict[tuple[str, str], float]:
        """By start and end, where anything was sent."""
        ways = ((start, end, way) for start, ends in self._ways.items() for end, way in ends.items())
        return {(start, end): way.bytes_sent for start, end, way in ways if way.bytes_sent}

    def arrival(self, now: float, start: str, end: str, tokens: int) -> float:
        """When a message of so many tokens, sent now, is there."""
        if start == end:
            return now
        ends = self._ways.get(start)
        way = None if ends is None else ends.get(end)
        return now if way is None else way.arrival(now, ENVELOPE + BYTES_PER_TOKEN * tokens)


def _number(name: str) -> int:
    return int.from_bytes(name.encode(), "big")
