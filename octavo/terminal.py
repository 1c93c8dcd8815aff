"""How octavo speaks: results on stdout, everything else on stderr, at most 100 columns, plain when not a terminal."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from octavo.extras import extra_with
from octavo.profiles.errors import OctavoError

WIDTH = 100
INTERRUPTED = 130
TERMINATED = 143
INTERRUPTION = "interrupted; nothing half-written was left, and what was kept is found again"

# Told how far a stage is: its name, the share done in [0, 1], and what is going on.
Watcher = Callable[[str, float, str], None]


def console(*, stderr: bool = False) -> Console:
    """A console of at most 100 columns; without a terminal always 100, so that output is the same everywhere."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() and os.get_terminal_size(stream.fileno()).columns < WIDTH else WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def say(text: str = "") -> None:
    """A line of the result."""
    console().print(escape(text))


def note(text: str) -> None:
    """A line about what is going on, for whoever watches."""
    console(stderr=True).print(escape(text), style="dim")


def complain(text: str) -> None:
    """What went wrong, for the person who can put it right."""
    console(stderr=True).print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)


def dump(data: Any) -> None:
    """The result for machines: JSON with sorted keys on stdout."""
    print(json.dumps(data, indent=2, sort_keys=True, default=str))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Table:
    """A table whose first `left` columns are words and the rest numbers."""
    made = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for index, column in enumerate(columns):
        words = index < left
        made.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=index == 0 or not words)
    made.padding = (0, 1, 0, 0)
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    return made


def show(renderable: Any) -> None:
    """Print a table to stdout."""
    console().print(renderable)


@dataclass
class Stop:
    """How a command that was stopped exits."""

    code: int = INTERRUPTED


@contextmanager
def stoppable() -> Iterator[Stop]:
    """SIGTERM stops as Ctrl-C does: as a KeyboardInterrupt, but with another exit code."""
    stop = Stop()

    def hear(number: int, frame: object) -> None:
        stop.code = TERMINATED
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def watching(quiet: bool = False) -> Iterator[Watcher]:
    """A bar per stage on a terminal; elsewhere a line at the start and the end of each stage."""
    if quiet:
        yield lambda stage, share, message: None
    elif sys.stderr.isatty():
        with _bars() as progress:
            yield _bar_watcher(progress)
    else:
        yield _line_watcher()


def _bars() -> Progress:
    columns = (TextColumn("{task.description:<28}"), BarColumn(24), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[message]}"), console=console(stderr=True))


def _bar_watcher(progress: Progress) -> Watcher:
    tasks: dict[str, TaskID] = {}

    def watch(stage: str, share: float, message: str) -> None:
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage, total=1.0, message="")
        progress.update(tasks[stage], completed=share, message=escape(message))

    return watch


def _line_watcher() -> Watcher:
    seen: dict[str, float] = {}

    def watch(stage: str, share: float, message: str) -> None:
        before = seen.get(stage)
        seen[stage] = share
        if before is None or (share >= 1.0 > before):
            note(f"{stage}: {'done' if share >= 1.0 else 'started'} {message}".rstrip())

    return watch


def ending(error: BaseException) -> tuple[str, int] | None:
    """What a failed command says and exits with; None for an error that is our fault and deserves a traceback."""
    match error:
        case OctavoError():
            return f"{error}", error.exit_code
        case KeyboardInterrupt() | EOFError():
            return INTERRUPTION, INTERRUPTED
        case OSError() if error.errno == errno.ENOSPC:
            return f"no space left on the disk while writing {error.filename or 'a file'}", 4
        case PermissionError():
            return f"not allowed to open {error.filename}: {error.strerror}", 4
        case MemoryError():
            return "out of memory", 4
        case ModuleNotFoundError() if error.name and (extra := extra_with(error.name)):
            return f"{error.name} is not installed; install octavo[{extra}]", 4
    return None
