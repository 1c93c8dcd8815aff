"""Serves an open-loop load in real time: prompts that arrive whether or not the earlier ones are answered."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from time import sleep, thread_time
from typing import Any

import numpy as np

from octavo.profiles.errors import ConfigError
from octavo.runtime.core.trace import Record
from octavo.runtime.local import Octavo, Prepared, Result


@dataclass(frozen=True, slots=True)
class Arrival:
    """A query of a load: when it comes (seconds from the start), and a prompt, or how long a made-up one is.

    With `answer_tokens` every inference writes exactly so many.
    """

    at: float
    prompt: str | None = None
    prompt_tokens: int = 0
    answer_tokens: int | None = None


def poisson(prompts: Sequence[str], rate: float, queries: int, seed: int = 0) -> list[Arrival]:
    """Prompts in turn, at independent times, `rate` a second on the mean."""
    if rate <= 0 or queries < 1:
        raise ConfigError(f"load: rate and queries must be positive, got {rate} and {queries}")
    rng, at = random.Random(seed), 0.0
    arrivals = []
    for number in range(queries):
        at += rng.expovariate(rate)
        arrivals.append(Arrival(at, prompts[number % len(prompts)]))
    return arrivals


def fitting(arrivals: Sequence[Arrival], context: int) -> list[Arrival]:
    """The arrivals whose prompt and answer fit the context. Raises ConfigError where none does."""
    found = [each for each in arrivals if each.prompt_tokens + (each.answer_tokens or 0) <= context]
    if not found:
        least = min(each.prompt_tokens + (each.answer_tokens or 0) for each in arrivals)
        raise ConfigError(f"replay: no query fits the context of {context} tokens; the shortest takes {least}")
    return found


def serve_load(
    octavo: Octavo,
    arrivals: Iterable[Arrival],
    told: Callable[[float], None] = lambda share: None,
    opened: Callable[[float], None] = lambda seconds: None,
    **options: Any,
) -> list[Record]:
    """Ask each query at its time, wait for all answers, and return the run's trace: its head, then all records.

    The bundle must have been loaded with `keep_records`. Options are those of `Octavo.ask`. A query that cannot be
    answered is in the trace as failed. `opened` is told the processor's seconds that each query took to open.
    """
    if not octavo.loop.recorder.keeps:
        raise ConfigError("replay: load the bundle with keep_records")
    prepared = [(arrival.at, _prepare(octavo, arrival, number, options)) for number, arrival in enumerate(arrivals)]
    prepared.sort(key=lambda pair: pair[0])
    recorder = octavo.loop.recorder
    gc.collect()
    gc.freeze()  # as the server does: no collection looks at what was there before
    recorder.restart()
    futures: list[Future[Result]] = []
    for at, ready in prepared:
        while (ahead := at - recorder.now()) > 0:
            sleep(
                ahead
            )  # a tenth of a millisecond late does no harm; waking often would take the interpreter from lanes
        spent = thread_time()
        futures.append(octavo.start(ready))
        opened(thread_time() - spent)
        told(len(futures) / len(prepared))
    wait(futures)
    octavo.loop.settle()
    gc.unfreeze()
    head = octavo.run_record()
    head.policy = str(options.get("policy") or head.policy)
    head.settings = dict(options.get("settings") or {})
    head.deadline, head.seed = options.get("deadline"), int(options.get("seed", 0))
    return [head, *recorder.records()]


def _prepare(octavo: Octavo, arrival: Arrival, number: int, options: dict[str, Any]) -> Prepared:
    if arrival.prompt is not None:
        return octavo.prepare(arrival.prompt, number=number, **options)
    tokens = np.random.default_rng(number).integers(3, octavo.vocabulary.size, arrival.prompt_tokens)
    return octavo.prepare(tokens, number=number, ends=False, **options | {"max_new_tokens": arrival.answer_tokens})
