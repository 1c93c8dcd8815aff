"""What is kept of inferences: the time per output token of each, and all of their records where there is a trace."""

from __future__ import annotations

from array import array

from octavo.runtime.core.trace import InferenceRecord

MANY = 4096


class Tokens:
    """Collects seconds per output token of queries from number `skip_before` on; records too, with a `trace`."""

    def __init__(self, skip_before: int, trace: list[InferenceRecord] | None = None) -> None:
        self.skip_before = skip_before
        self.trace = trace
        self._seconds = array("d")
        self._newest: list[float] = []  # a list grows faster than an array, and holds four times as much a number

    @property
    def seconds(self) -> array[float]:
        self._seconds.extend(self._newest)
        self._newest.clear()
        return self._seconds

    def keep(self, record: InferenceRecord) -> None:
        """Of an inference that has ended. A judge writes nothing, and one token has no time after the first."""
        if self.trace is not None:
            self.trace.append(record)
        first, ended = record.first_token, record.ended
        if record.judge or record.new_tokens < 2 or record.query < self.skip_before:
            return
        if first is not None and ended is not None:
            self._newest.append((ended - first) / (record.new_tokens - 1))
            if len(self._newest) == MANY:
                self._seconds.extend(self._newest)
                self._newest.clear()
