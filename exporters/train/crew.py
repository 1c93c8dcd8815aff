"""Worker processes of one thread each, so that the weights do not depend on how many there are."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from octavo.exporters.train.plan import Stage
from octavo.exporters.train.progress import Progress, Watch
from octavo.exporters.train.recipe import Recipe
from octavo.profiles.errors import MachineError


class Crew:
    """Carries out stages, each as soon as those it needs are done and a worker is free."""

    def __init__(self, root: Path, recipe: Recipe, size: int) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, BaseProcess] = {}
        for _ in range(size):
            ours, theirs = spawning.Pipe()
            worker = spawning.Process(target=_work, args=(theirs, root, recipe), daemon=True)
            worker.start()
            theirs.close()
            self._workers[ours] = worker

    def carry_out(self, stages: list[Stage], watch: Watch) -> None:
        """Return when all stages are done; raise what a stage raised."""
        waiting, busy = list(stages), dict[Connection, Stage]()
        while waiting or busy:
            for connection in [free for free in self._workers if free not in busy]:
                open_names = {stage.name for stage in (*waiting, *busy.values())}
                if ready := next((stage for stage in waiting if not open_names & set(stage.after)), None):
                    waiting.remove(ready)
                    busy[connection] = ready
                    connection.send(ready)
            heard = set(wait(list(busy)))
            for connection in [speaker for speaker in busy if speaker in heard]:
                if self._hear(connection, busy[connection], watch):
                    del busy[connection]

    def _hear(self, connection: Connection, stage: Stage, watch: Watch) -> bool:
        """Pass on what a worker says; true when its stage is done."""
        try:
            said = connection.recv()
        except EOFError:
            worker = self._workers[connection]
            worker.join()
            raise MachineError(f"{stage.name}: its worker process ended with code {worker.exitcode}") from None
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Progress):
            watch(said)
        return said is None

    def dismiss(self) -> None:
        for connection, worker in self._workers.items():
            worker.terminate()
            worker.join()
            connection.close()


@contextlib.contextmanager
def crew(root: Path, recipe: Recipe, size: int) -> Iterator[Crew]:
    """Workers for as long as the block runs; whatever they are doing when it ends is stopped."""
    hired = Crew(root, recipe, size)
    try:
        yield hired
    finally:
        hired.dismiss()


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(connection: Connection, root: Path, recipe: Recipe) -> None:
    """Carry out one stage after the other until dismissed, which tidies up. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.suppress(ImportError):  # loads torch before the first stage is there; a stage says what is missing
        import octavo.exporters.train.stages  # noqa: F401
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone
        while True:
            stage = connection.recv()
            try:
                _carry_out(stage, recipe, root, connection.send)
                connection.send(None)
            except Exception as error:
                error.add_note(traceback.format_exc())
                connection.send(error)


def _carry_out(stage: Stage, recipe: Recipe, root: Path, watch: Watch) -> None:
    import torch

    from octavo.exporters.train.stages import carry_out

    torch.set_num_threads(1)
    carry_out(stage, recipe, root, watch)
