"""A plan's simulations on a Ray cluster: the search for each line is a task, and so is each seed's run of a point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayTaskError

from octavo.profiles.errors import MachineError
from octavo.profiles.scenario import Scenario
from octavo.simulator.plan.trials import Pool, Progress, R, T, Trial, Work, trial


class RayPool(Pool):
    """The processors of the cluster at `address` (None: one of this machine's own), whose nodes have octavo installed.

    Raises MachineError where the cluster cannot be reached; a task's own error is raised as it is.
    """

    def __init__(self, address: str | None = None) -> None:
        super().__init__(jobs=1)
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            try:
                ray.init(
                    address=address or "local", log_to_driver=False, configure_logging=False, include_dashboard=False
                )
            except ConnectionError as error:
                raise MachineError(f"plan: no Ray cluster at {address}: {error}") from None

    def map(self, tasks: Sequence[tuple[Scenario, int]]) -> Iterable[Trial]:
        if len(tasks) == 1:
            return super().map(tasks)
        self.runs += len(tasks)
        return [_got(ref) for ref in [_trial.remote(task) for task in tasks]]

    def each(self, work: Work[T, R], tasks: Sequence[tuple[str, T]], progress: Progress) -> Iterator[R]:
        """All pieces of work at once; what a piece asks to be simulated is spread again."""
        names: dict[Any, str] = {_piece.remote(work, task): name for name, task in tasks}
        for name in names.values():
            progress(name, 0.0)
        waiting = list(names)
        for ref in names:
            while ref in waiting:
                (done, *_), waiting = ray.wait(waiting)
                progress(names[done], 1.0)
            result, runs = _got(ref)
            self.runs += runs
            yield result

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._is_ours:
            ray.shutdown()


def _got(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise error.cause from None


def _done(work: Callable[..., R], task: Any) -> tuple[R, int]:
    pool = RayPool()
    result = work(pool, task, lambda share: None)
    return result, pool.runs


_trial, _piece = ray.remote(trial), ray.remote(_done)
