"""What is written down while serving: one JSON line per event on stderr, and the trace file."""

from __future__ import annotations

import atexit
import json
import logging
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from queue import Full, Queue, SimpleQueue
from secrets import token_bytes
from threading import Thread
from typing import Any, Literal

from octavo.profiles.errors import ConfigError
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, RunRecord, to_lines

LOG = logging.getLogger("octavo.server")
ROOM = 10_000  # lines that wait to be written
LAST = 2.0  # seconds for the last of them when the process ends


class JsonLines(logging.Formatter):
    """A line of JSON: when, how grave, what happened, and its fields. Prompts and answers are never among them."""

    def format(self, record: logging.LogRecord) -> str:
        row = {"time": _utc(record.created), "level": record.levelname.lower(), "event": record.getMessage()}
        row |= getattr(record, "fields", {})
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str)


class TextLines(logging.Formatter):
    """The same for a reader: time, event, and fields as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {key: value for key, value in getattr(record, "fields", {}).items() if value is not None}
        shown = (f"{key}={json.dumps(value, default=str)}" for key, value in fields.items())
        line = " ".join((_utc(record.created), record.levelname.lower(), record.getMessage(), *shown))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Unhurried(logging.Handler):
    """Lets a thread of its own write the lines: whoever reads stderr slowly, or not at all, holds up no request.

    What no longer fits the queue is lost; the next line that does fit says in `lines_lost` how many were.
    """

    def __init__(self, writer: logging.Handler, room: int = ROOM) -> None:
        super().__init__()
        self._writer = writer
        self._queue: Queue[logging.LogRecord | None] = Queue(room)
        self._lost = 0
        self._thread = Thread(target=self._run, name="octavo log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def emit(self, record: logging.LogRecord) -> None:
        lost = self._lost
        if lost:
            record.fields = getattr(record, "fields", {}) | {"lines_lost": lost}
        try:
            self._queue.put_nowait(record)
            self._lost -= lost
        except Full:
            self._lost += 1

    def close(self) -> None:
        """Write what is left, as far as somebody reads it within LAST seconds."""
        atexit.unregister(self.close)
        with suppress(Full):
            self._queue.put(None, timeout=LAST)
            self._thread.join(LAST)
        super().close()

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            self._writer.handle(record)


def start_logging(form: Literal["json", "text"] = "json") -> None:
    """One line per event on stderr, for the server and the web server under it."""
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(JsonLines() if form == "json" else TextLines())
    handler = Unhurried(writer)
    for name in ("octavo.server", "octavo.runtime", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "octavo.server" else logging.WARNING)


def log(event: str, **fields: Any) -> None:
    LOG.info(event, extra={"fields": fields})


class TraceFile:
    """Appends records to a file in a thread of its own. When the disk is full it says so and stops; serving goes on.

    Labels that votes count are texts of answers; each is replaced by a keyed hash, equal for equal labels of this run.
    """

    def __init__(self, path: Path, head: RunRecord) -> None:
        self._path = path
        self._key = token_bytes(32)
        self._queue: SimpleQueue[list[Record] | None] = SimpleQueue()
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"trace: {path}: {error.strerror}") from None
        self._thread = Thread(target=self._run, name="octavo trace", daemon=True)
        self._thread.start()
        self._queue.put([head])

    def hear(self, query: QueryRecord, inferences: list[InferenceRecord]) -> None:
        """A query is over."""
        self._queue.put([query, *inferences])

    def close(self) -> None:
        """Write what is left."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        whole = True
        while (records := self._queue.get()) is not None:
            whole = whole and self._write(records)
        with suppress(OSError):
            self._file.close()

    def _write(self, records: Iterable[Record]) -> bool:
        try:
            self._file.write("".join(f"{line}\n" for line in to_lines(map(self._without_words, records))))
            self._file.flush()
        except OSError as error:
            LOG.error("trace stopped", extra={"fields": {"file": str(self._path), "reason": error.strerror}})
            return False
        return True

    def _without_words(self, record: Record) -> Record:
        if not isinstance(record, InferenceRecord) or record.answer is None:
            return record
        return replace(record, answer=blake2b(record.answer.encode(), key=self._key, digest_size=8).hexdigest())


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
