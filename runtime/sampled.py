"""One sampling run: every candidate that an evaluation needs, from real sessions, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from octavo.profiles.errors import OctavoError
from octavo.runtime.core.policies import Deliberation, Policy, Tally, gather
from octavo.runtime.core.query import Ensemble, Inference, Query
from octavo.runtime.datasets import Task
from octavo.runtime.local import Octavo, Result
from octavo.runtime.tasks import Checker

OPEN = 128  # queries under way at once


@dataclass(frozen=True, slots=True)
class Sampled:
    """One candidate, as the outcome records of an evaluation have it. `logprob` is the mean per token."""

    query: str
    expert: str
    sample: int
    text: str
    answer: str | None
    correct: bool
    value: float | None
    mean_logprob: float
    new_tokens: int
    seconds: float

    def record(self) -> dict[str, Any]:
        return asdict(self)


def sweep(experts: Sequence[str], samples: range, *, judged: bool) -> Policy:
    """A policy that starts these samples of these experts, and waits for all of them."""

    def everything(panel: Ensemble, query: Query) -> Deliberation:
        tally = Tally(panel, query)
        asked = [Inference(query, expert, sample) for expert in experts for sample in samples]
        yield from gather(tally, asked, judged=judged)
        return tally.by_logprob("everything was sampled")

    return everything


class Keeper(Protocol):
    """Remembers the candidates of finished tasks."""

    def of(self, stage: str) -> dict[str, list[Sampled]]: ...

    def add(self, stage: str, task: str, candidates: Sequence[Sampled]) -> None: ...


def sample(
    octavo: Octavo,
    tasks: Sequence[Task],
    checker: Checker,
    policy: Policy,
    told: Callable[[int], None] = lambda done: None,
    keeper: Keeper | None = None,
    stage: str = "",
    **options: Any,
) -> dict[str, list[Sampled]]:
    """The candidates of each task, by its id. `told` hears how many tasks are done.

    What the `keeper` has of the `stage` is not sampled again; it is given the rest, task by task.
    """
    found = keeper.of(stage) if keeper else {}
    missing = [(number, task) for number, task in enumerate(tasks) if task.id not in found]
    before = len(tasks) - len(missing)
    told(before)

    def hear(task: Task, result: Result) -> None:
        found[task.id] = [_sampled(task, reply, checker) for reply in result.candidates]
        if keeper:
            keeper.add(stage, task.id, found[task.id])

    served(octavo, missing, policy, checker, hear, lambda done: told(before + done), **options)
    return {task.id: found[task.id] for task in tasks}


def served(
    octavo: Octavo,
    tasks: Sequence[tuple[int, Task]],
    policy: Policy,
    checker: Checker,
    hear: Callable[[Task, Result], None],
    told: Callable[[int], None],
    **options: Any,
) -> None:
    """Ask numbered tasks, a bounded number of them at a time; `hear` is given each result as it arrives."""
    running: dict[Future[Result], Task] = {}
    todo = iter(tasks)
    done = 0
    try:
        while True:
            for number, task in todo:
                label = checker.label_of(task)
                future = octavo.submit(task.prompt, policy=policy, number=number, label=label, **options)
                running[future] = task
                if len(running) >= OPEN:
                    break
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                hear(task, result(future, task))
                done += 1
            told(done)
    finally:
        for future in running:
            future.cancel()


def result(future: Future[Result], task: Task) -> Result:
    """What became of a task's query. Raises OctavoError naming the task."""
    try:
        return future.result()
    except OctavoError as error:
        raise type(error)(f"task {task.id}: {error}") from None


def _sampled(task: Task, reply: Any, checker: Checker) -> Sampled:
    return Sampled(
        task.id,
        reply.expert,
        reply.sample,
        reply.text,
        reply.label,
        checker.right(task, reply.text),
        reply.value,
        reply.mean_logprob,
        reply.new_tokens,
        reply.seconds,
    )
