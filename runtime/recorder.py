"""Writes down what a run did, as the records that measured and simulated runs share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

from octavo.runtime.core.query import Answer, Candidate, Inference, Lost, Query, Score
from octavo.runtime.core.scheduler import Chunk, Job, Step
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, StepRecord

Listener = Callable[[QueryRecord, list[InferenceRecord]], None]
LOG = logging.getLogger("octavo.runtime")


class Recorder:
    """The run's clock, which starts at zero, and its records. Not thread-safe: the loop calls it under its lock.

    `keep` says whether records of queries that are over and of steps are kept for `records`. Each of `listeners` hears
    the records of a query and its inferences once nothing more will happen to them; it must be quick. What it raises is
    logged, and keeps neither the other listeners nor the query from their end.
    """

    def __init__(self, *, keep: bool = True, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._start = clock()
        self._keep = keep
        self.queries: dict[Query, QueryRecord] = {}
        self.inferences: dict[Inference, InferenceRecord] = {}
        self.steps: list[StepRecord] = []
        self.listeners: list[Listener] = []

    @property
    def keeps(self) -> bool:
        return self._keep

    def restart(self) -> None:
        """Begin the clock and the records anew, when no query is open."""
        self._start = self._clock()
        self.queries, self.inferences, self.steps = {}, {}, []

    def now(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._start

    def records(self) -> Iterator[Record]:
        """Everything kept: queries, inferences, steps."""
        yield from self.queries.values()
        yield from self.inferences.values()
        yield from self.steps

    def asked(self, query: Query, arrival: float) -> None:
        self.queries[query] = QueryRecord(
            query.id, arrival, query.prompt_tokens, max_new_tokens=query.max_new_tokens, prefix=query.prefix
        )

    def started(self, inference: Inference, device: str, at: float) -> None:
        self.inferences[inference] = InferenceRecord(
            inference.query.id,
            inference.model,
            inference.sample,
            inference.judges is not None,
            device,
            inference.prompt_tokens,
            0,
            at,
            judges=inference.judges.inference.model if inference.judges else None,
        )

    def stepped(self, device: str, step: Step, jobs: list[Job], start: float, seconds: float) -> None:
        """A step has run; `jobs` are those whose prompts it completed."""
        if self._keep:
            self.steps.append(
                StepRecord(
                    device, start, seconds, step.decodes, step.context, step.prefill_tokens, 1, len(step.preempted)
                )
            )
        for job in step.preempted:
            self.inferences[job.inference].preemptions += 1
        for job in jobs:
            record, query = self.inferences[job.inference], self.queries[job.inference.query]
            if record.first_token is None and not record.judge:
                record.first_token = start + seconds
                if query.first_token is None:
                    query.first_token = start + seconds

    def scheduled(self, chunks: tuple[Chunk, ...], at: float) -> None:
        """The prompts of these chunks begin to be computed."""
        for chunk in chunks:
            for job in chunk.prompt.jobs:
                record = self.inferences[job.inference]
                if record.scheduled is None:
                    record.scheduled = at

    def reported(self, inference: Inference, scheduled: float | None, first_token: float | None) -> None:
        """Another process says when it began on an inference, and when that wrote its first token."""
        record, query = self.inferences[inference], self.queries[inference.query]
        record.scheduled, record.first_token = scheduled, first_token
        if first_token is not None and (query.first_token is None or first_token < query.first_token):
            query.first_token = first_token

    def ended(self, result: Candidate | Score | Lost, inference: Inference, at: float) -> None:
        """An inference came back."""
        record, query = self.inferences[inference], self.queries[inference.query]
        record.ended = at
        match result:
            case Candidate():
                record.new_tokens, record.mean_logprob, record.answer = (
                    result.new_tokens,
                    result.mean_logprob,
                    result.answer,
                )
                query.total_tokens += result.new_tokens
                query.candidates += 1
            case Score():
                record.value = result.value
            case Lost():
                record.end = "lost"

    def withdrawn(self, inference: Inference, written: int, at: float) -> None:
        record, query = self.inferences[inference], self.queries[inference.query]
        record.ended, record.new_tokens, record.end = at, written, "withdrawn"
        query.total_tokens += written
        query.wasted_tokens += written

    def closed(self, query: Query, at: float, answer: Answer | None, failure: str | None) -> None:
        record = self.queries[query]
        record.ended = at
        if answer is None:
            record.outcome, record.reason = "failed", failure or ""
            return
        chosen = answer.candidate
        record.reason, record.degraded = answer.reason, answer.degraded
        record.answer_tokens = chosen.total_tokens
        record.chosen = f"{chosen.inference.model}/{chosen.inference.sample}"
        record.value = next((score.value for score in answer.scores if score.candidate is chosen), None)
        ends = [self.inferences[candidate.inference].ended or at for candidate in answer.candidates]
        record.barrier_wait = max(ends) - median(ends)

    def forget(self, query: Query, inferences: list[Inference]) -> None:
        """Nothing more will happen to a query; without `keep` its records go."""
        for listener in self.listeners:
            try:
                listener(self.queries[query], [self.inferences[inference] for inference in inferences])
            except Exception:
                LOG.exception("a listener of records failed")
        if not self._keep:
            del self.queries[query]
            for inference in inferences:
                del self.inferences[inference]
