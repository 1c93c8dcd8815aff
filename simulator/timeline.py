"""How busy a device was over time, in a bounded number of bins that grow wider as the run grows longer."""

from __future__ import annotations

BINS = 256


class Timeline:
    """Seconds busy, and batch, waiting prompts and share of KV memory in use while busy, per bin of `width` seconds.

    What the newest bin has so far is kept apart, as numbers and not as objects, until a later one begins.
    """

    __slots__ = ("_busy", "_kv", "_newest", "_queue", "_rows", "busy", "kv", "queue", "rows", "width")

    def __init__(self, width: float = 1.0) -> None:
        self.width = width
        self.busy: list[float] = []
        self.rows: list[float] = []
        self.queue: list[float] = []
        self.kv: list[float] = []
        self._newest = -1
        self._busy = self._rows = self._queue = self._kv = 0.0

    def add(self, start: float, seconds: float, rows: int, kv: float, queue: int = 0) -> None:
        """A stretch of time in which the batch had so many rows and so many prompts waited; times never go back."""
        end = start + seconds
        while end >= self.width * BINS:
            self._widen()
        last = int(end / self.width)
        if last != self._newest:
            for number in range(int(start / self.width), last):
                self._open(number)
                left = (number + 1) * self.width
                self._add(left - start, rows, kv, queue)
                start = left
            self._open(last)
        self._add(end - start, rows, kv, queue)

    def _add(self, inside: float, rows: int, kv: float, queue: int) -> None:
        self._busy += inside
        self._rows += inside * rows
        self._kv += inside * kv
        self._queue += inside * queue

    def _open(self, number: int) -> None:
        """Go on to a later bin."""
        self._write()
        while self._newest < number:
            self._newest += 1
            for bins in (self.busy, self.rows, self.queue, self.kv):
                bins.append(0.0)
        self._read()

    def _write(self) -> None:
        newest = self._newest
        if newest >= 0:
            self.busy[newest], self.rows[newest] = self._busy, self._rows
            self.queue[newest], self.kv[newest] = self._queue, self._kv

    def _read(self) -> None:
        newest = self._newest
        if newest >= 0:
            self._busy, self._rows = self.busy[newest], self.rows[newest]
            self._queue, self._kv = self.queue[newest], self.kv[newest]

    def _widen(self) -> None:
        """Join bins in pairs."""
        self._write()
        self.width *= 2
        self.busy, self.rows, self.kv = _paired(self.busy), _paired(self.rows), _paired(self.kv)
        self.queue = _paired(self.queue)
        self._newest = len(self.busy) - 1
        self._read()

    def track(self, end: float) -> dict[str, list[float]]:
        """Time of each bin's middle, share of it busy, and mean batch, queue and KV share in it."""
        self._write()
        width = self.width
        inside = [max(min(width, end - number * width), 1e-12) for number in range(len(self.busy))]
        return {
            "time": [(number + 0.5) * width for number in range(len(self.busy))],
            "utilisation": [min(1.0, busy / w) for busy, w in zip(self.busy, inside, strict=True)],
            "batch": [rows / w for rows, w in zip(self.rows, inside, strict=True)],
            "queue": [waiting / w for waiting, w in zip(self.queue, inside, strict=True)],
            "kv": [min(1.0, kv / w) for kv, w in zip(self.kv, inside, strict=True)],
        }


def _paired(bins: list[float]) -> list[float]:
    return [sum(bins[i : i + 2]) for i in range(0, len(bins), 2)]
