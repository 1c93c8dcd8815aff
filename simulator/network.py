"""Messages between tiers: propagation, jitter, loss, and a link that sends one message at a time in each direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from octavo.profiles.link import Link

CLIENT = "client"
BYTES_PER_TOKEN = 4.0
"""Of text, UTF-8 English; what tokenizers of 32k to 256k entries give."""
ENVELOPE = 600.0
"""Bytes of headers and JSON around a message."""


@dataclass(slots=True)
class Network:
    """Links by the two places that they connect. Without a link, two places are one: a message takes no time."""

    links: Mapping[frozenset[str], Link] = field(default_factory=dict)
    seed: np.random.SeedSequence = field(default_factory=lambda: np.random.SeedSequence(0))
    bytes_sent: dict[tuple[str, str], float] = field(default_factory=dict)
    _free_at: dict[tuple[str, str], float] = field(default_factory=dict)
    _random: dict[tuple[str, str], np.random.Generator] = field(default_factory=dict)

    def arrival(self, now: float, start: str, end: str, tokens: int) -> float:
        """When a message of so many tokens, sent now, is there."""
        if start == end or not self.links:
            return now
        link = self.links.get(frozenset((start, end)))
        if link is None:
            return now
        payload = ENVELOPE + BYTES_PER_TOKEN * tokens
        way = (start, end)
        self.bytes_sent[way] = self.bytes_sent.get(way, 0.0) + payload
        up = start == CLIENT
        sending = link.seconds(payload, up=up) - link.rtt / 2
        sent = max(now, self._free_at.get(way, 0.0)) + sending
        self._free_at[way] = sent
        return sent + link.rtt / 2 + self._delay(link, way)

    def _delay(self, link: Link, way: tuple[str, str]) -> float:
        """Jitter, never negative, and one more round trip for each time that the message is lost.

        Each way has its own random numbers: what is sent one way does not change the other.
        """
        random = self._random.get(way)
        if random is None:
            named = np.random.SeedSequence(self.seed.entropy, spawn_key=(*self.seed.spawn_key, *map(_number, way)))
            random = self._random[way] = np.random.default_rng(named)
        late = abs(random.normal(0.0, link.jitter / 2)) if link.jitter else 0.0
        lost = random.geometric(1 - link.loss) - 1 if 0 < link.loss < 1 else 0
        return float(late + lost * link.rtt)


def _number(name: str) -> int:
    return int.from_bytes(name.encode(), "big")
