"""What a step computes and what it does in the interpreter, told apart by the processor time of its thread.

What a thread waits for the interpreter is in neither: the clocks are those of the thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import thread_time
from typing import Any, NamedTuple

from octavo.profiles.latency import Parts
from octavo.runtime.core.scheduler import Step
from octavo.runtime.engine import Ended, Engine


class Taken(NamedTuple):
    """Seconds of one step: inside of the model's calls, and outside; and how many results it had."""

    computing: float
    hosting: float
    results: int


class Clocked:
    """An engine for one step: its own, with a clock around the model's calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.computing = 0.0
        self.results = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def run(self, step: Step) -> list[Ended]:
        calls: Any = getattr(self.engine, "calls", None)
        if calls is None:
            return self.engine.run(step)
        run = calls.run

        def clocked(*arguments: Any) -> None:
            begun = thread_time()
            run(*arguments)
            self.computing += thread_time() - begun

        calls.run = clocked
        try:
            ended = self.engine.run(step)
        finally:
            calls.run = run
        self.results = len(ended)
        return ended


def parts(taken: Sequence[Taken]) -> Parts:
    """The medians of several steps of a kind."""
    return Parts(
        computing=max(1e-9, median(each.computing for each in taken)),
        hosting=max(1e-9, median(each.hosting for each in taken)),
    )
