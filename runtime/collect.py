"""Collects an ensemble's own candidates, as tokens and with verdicts, in a file that grows task by task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import IO, Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.manifest import MANIFEST_NAME, sha256_of
from octavo.runtime.contents import Contents, Tokens
from octavo.runtime.core.policies import Deliberation, Policy
from octavo.runtime.core.query import Ensemble, Query
from octavo.runtime.datasets import Task
from octavo.runtime.local import Octavo, Reply, Result
from octavo.runtime.sampled import result, sweep
from octavo.runtime.tasks import Checker, read_tasks

AT_ONCE = 64  # tasks between two writes
Progress = Callable[[float], None]
Named = tuple[str, int]  # an expert and its sample


def collect(
    bundle: Path,
    tasks: Path,
    out: Path,
    *,
    verifier: str | None = None,
    answer: str | None = None,
    samples: int | None = None,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = lambda share: None,
    **load: Any,
) -> None:
    """Sample every expert `samples` times for every task, and ask the verifier (or the references) who is right.

    Writes JSON Lines to `out`: first how it was made, then a line per task with the prompt's tokens and every
    candidate's. Tasks that are in the file already are not sampled again. `load` goes to `Octavo.load`.

    Raises ConfigError where the file was made otherwise, BundleError or MachineError.
    """
    checker = Checker.named(verifier, answer)
    asked = read_tasks(tasks, limit)
    checker.demand(asked, tasks)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed}
    options |= {} if temperature is None else {"temperature": temperature}
    made: dict[str, Any] = {
        "kind": "candidates",
        "bundle": sha256_of(bundle / MANIFEST_NAME),
        "verifier": verifier,
        "answer": answer,
    }
    made |= {"samples": samples, "temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed}
    done = resume(out, made)
    missing = [(number, task) for number, task in enumerate(asked) if task.id not in done]
    if not missing:
        return
    with Octavo.load(bundle, samples=samples, **load) as octavo, out.open("a", encoding="utf-8") as stream:
        left = iter(missing)
        while some := list(islice(left, AT_ONCE)):
            write(stream, rows(octavo, some, checker, options))
            progress((len(asked) - len(missing) + missing.index(some[-1]) + 1) / len(asked))


def resume(out: Path, made: Mapping[str, Any]) -> set[str]:
    """The tasks that the file holds; a line that was cut off is removed, a file that is not there is begun."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(made) + "\n", encoding="utf-8")
        return set()
    text = out.read_text(encoding="utf-8")
    head, *lines = text[: text.rfind("\n") + 1].splitlines() or [""]
    try:
        found = json.loads(head)
        done = {str(json.loads(line)["query"]) for line in lines}
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{out}: not a file of candidates; remove it, or choose another folder") from None
    for key, value in made.items():
        if found.get(key) != value:
            raise ConfigError(f"{out}: sampled with {key} {found.get(key)!r}, now {value!r}; remove it to sample again")
    out.write_text("".join(f"{line}\n" for line in (head, *lines)), encoding="utf-8")
    return done


def rows(
    octavo: Octavo, tasks: Sequence[tuple[int, Task]], checker: Checker, options: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row for each task: its id, its prompt's tokens, and the candidates."""
    policy = sweep(octavo.ensemble.experts, range(octavo.ensemble.samples_per_expert), judged=False)
    running: list[tuple[Task, dict[Named, Tokens], Future[Result]]] = []
    try:
        for number, task in tasks:
            written: dict[Named, Tokens] = {}
            keeping = kept(policy, octavo.loop.contents, written)
            running.append((task, written, octavo.submit(task.prompt, policy=keeping, number=number, **options)))
        for task, written, future in running:
            replies = [(reply, written[reply.expert, reply.sample]) for reply in result(future, task).candidates]
            yield {
                "query": task.id,
                "prompt": octavo.vocabulary.encode(task.prompt).tolist(),
                "candidates": [candidate(reply, tokens, checker.right(task, reply.text)) for reply, tokens in replies],
            }
    finally:
        for _, _, future in running:
            future.cancel()


def kept(policy: Policy, contents: Contents, written: dict[Named, Tokens]) -> Policy:
    """The policy; the tokens of its candidates go to `written` before the query is closed and forgotten."""

    def keeping(panel: Ensemble, query: Query) -> Deliberation:
        answer = yield from policy(panel, query)
        for each in answer.candidates:
            written[each.inference.model, each.inference.sample] = contents.written(each).tokens
        return answer

    return keeping


def candidate(reply: Reply, tokens: Tokens, right: bool) -> dict[str, Any]:
    return {"expert": reply.expert, "sample": reply.sample, "tokens": tokens.tolist(), "right": right}


def write(stream: IO[str], found: Iterable[Mapping[str, Any]]) -> None:
    stream.writelines(json.dumps(row) + "\n" for row in found)
    stream.flush()
