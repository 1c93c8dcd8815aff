"""A connection: how long a message takes on it."""

from __future__ import annotations

from octavo.profiles.fact import Fact
from octavo.profiles.quantity import BytesPerSecond, Fraction, Seconds


class Link(Fact):
    """Round trip, its standard deviation, and bandwidth per direction (`up` is towards the server)."""

    rtt: Seconds
    jitter: Seconds = 0.0
    bandwidth: BytesPerSecond
    up_bandwidth: BytesPerSecond | None = None
    loss: Fraction = 0.0

    def seconds(self, payload: float, *, up: bool = False) -> float:
        """Seconds for `payload` bytes to arrive, alone on the link and without jitter."""
        bandwidth = self.up_bandwidth if up and self.up_bandwidth else self.bandwidth
        return self.rtt / 2 + payload / bandwidth
