"""How busy a device was over time, in a bounded number of bins that grow wider as the run grows longer."""

from __future__ import annotations

BINS = 256


class Timeline:
    """Seconds busy, and batch, waiting prompts and share of KV memory in use while busy, per bin of `width` seconds."""

    __slots__ = ("busy", "kv", "queue", "rows", "width")

    def __init__(self, width: float = 1.0) -> None:
        self.width = width
        self.busy: list[float] = []
        self.rows: list[float] = []
        self.queue: list[float] = []
        self.kv: list[float] = []

    def add(self, start: float, seconds: float, rows: int, kv: float, queue: int = 0) -> None:
        """A stretch of time in which the batch had so many rows and so many prompts waited; times never go back."""
        end = start + seconds
        while end >= self.width * BINS:
            self._widen()
        first, last = int(start / self.width), int(end / self.width)
        while len(self.busy) <= last:
            self.busy.append(0.0)
            self.rows.append(0.0)
            self.queue.append(0.0)
            self.kv.append(0.0)
        for number in range(first, last):
            left = (number + 1) * self.width
            self._add(number, left - start, rows, kv, queue)
            start = left
        self._add(last, end - start, rows, kv, queue)

    def _add(self, number: int, inside: float, rows: int, kv: float, queue: int) -> None:
        self.busy[number] += inside
        self.rows[number] += inside * rows
        self.kv[number] += inside * kv
        if queue:
            self.queue[number] += inside * queue

    def _widen(self) -> None:
        """Join bins in pairs."""
        self.width *= 2
        self.busy, self.rows, self.kv = _paired(self.busy), _paired(self.rows), _paired(self.kv)
        self.queue = _paired(self.queue)

    def track(self, end: float) -> dict[str, list[float]]:
        """Time of each bin's middle, share of it busy, and mean batch, queue and KV share in it."""
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
