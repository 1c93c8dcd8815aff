"""One sampling run: every candidate that an evaluation needs, from real sessions, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from typing import Any

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


def sample(
    octavo: Octavo,
    tasks: Sequence[Task],
    checker: Checker,
    policy: Policy,
    told: Callable[[int], None] = lambda done: None,
    **options: Any,
) -> dict[str, list[Sampled]]:
    """The candidates of each task, by its id. `told` hears how many tasks are done."""
    results = served(octavo, tasks, policy, checker, told, **options)
    return {task.id: [_sampled(task, reply, checker) for reply in result.candidates] for task, result in results}


def served(
    octavo: Octavo, tasks: Sequence[Task], policy: Policy, checker: Checker, told: Callable[[int], None], **options: Any
) -> Iterator[tuple[Task, Result]]:
    """Results in the order of the tasks; a bounded number of them is open at a time."""
    results: dict[int, Result] = {}
    running: dict[Future[Result], int] = {}
    todo = iter(enumerate(tasks))
    try:
        while True:
            for number, task in todo:
                running[
                    octavo.submit(task.prompt, policy=policy, number=number, label=checker.label_of(task), **options)
                ] = number
                if len(running) >= OPEN:
                    break
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                number = running.pop(future)
                results[number] = result(future, tasks[number])
            told(len(results))
    finally:
        for future in running:
            future.cancel()
    return iter([(task, results[number]) for number, task in enumerate(tasks)])


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
