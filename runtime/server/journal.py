"""What is written down while serving: one JSON line per event on stderr, and the trace file."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from queue import SimpleQueue
from secrets import token_bytes
from threading import Thread
from typing import Any, Literal

from octavo.profiles.errors import ConfigError
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, RunRecord, to_lines

LOG = logging.getLogger("octavo.server")


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


def start_logging(form: Literal["json", "text"] = "json") -> None:
    """One line per event on stderr, for the server and the web server under it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
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
