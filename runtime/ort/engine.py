"""The experts' engine: ragged prefill, forks, and one decode call a step for all open queries' candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np

from octavo.runtime.contents import Contents, Request, Tokens
from octavo.runtime.core.query import Candidate, Inference, Lost
from octavo.runtime.core.scheduler import Job, Limits, Prompt, Step
from octavo.runtime.engine import Ended
from octavo.runtime.grammar import Follower, grammars_of
from octavo.runtime.ort.binding import Calls, Outputs
from octavo.runtime.ort.cache import Cache
from octavo.runtime.ort.drawing import Drawing
from octavo.runtime.ort.prefill import Computed, Prefiller
from octavo.runtime.ort.prefixes import Prefixes, Resident
from octavo.runtime.ort.rows import Row, Rows
from octavo.runtime.ort.sampling import settings_of
from octavo.runtime.ort.session import Model
from octavo.runtime.text import Growing, Vocabulary

FAMILIES = 1 << 30  # after so many prompts their numbers begin anew


@dataclass(frozen=True, slots=True)
class Parked:
    """What a preempted job has written; its KV is gone and will be computed again."""

    row: Row
    tokens: Tokens
    logprob: float


class ExpertEngine:
    """Runs the steps of one expert, or of all adapters of one base; see `octavo.runtime.engine.Engine`.

    `length` is the tokens that a row can hold. `head` calibrates the value head that the graph has, if it has one: a
    candidate's value is then read where its last token was drawn.
    """

    def __init__(
        self,
        model: Model,
        vocabulary: Vocabulary,
        contents: Contents,
        limits: Limits,
        length: int,
        head: Callable[[float], float] | None = None,
    ) -> None:
        self._limits = limits
        self._vocabulary = vocabulary
        self._contents = contents
        self._cache = Cache(model.kv, limits.max_rows + 1, length, model.device)
        self.calls = Calls(model, self._cache)
        self._prefixes = Prefixes(self._cache, limits.hash_tokens) if limits.prefix_caching else None
        self._prefiller = Prefiller(self.calls, self._prefixes)
        self._rows = Rows(limits.max_rows, length)
        self._drawing = Drawing(model, self._rows, vocabulary.ends)
        self._ends = np.array(vocabulary.ends, np.int64)
        self._families = 1
        self._parked: dict[Job, Parked] = {}
        self._adapters = {name: number for number, name in enumerate(model.graph.adapters)}
        self._head = head if "score_logit" in model.outputs else None

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def held(self) -> int:
        """Of how many jobs and prompts it holds anything."""
        return self._rows.count + len(self._parked) + len(self._prefiller)

    def remember(self, resident: Resident) -> None:
        if self._prefixes is not None:
            self._prefixes.sweep(resident)

    def run(self, step: Step) -> list[Ended]:
        for job in step.preempted:
            self._preempt(job)
        ended = self._decode(step) if step.decodes else []
        return ended + self._prefill(step) if step.chunks else ended

    def withdraw(self, job: Job) -> None:
        self._parked.pop(job, None)
        if job in self._rows.place:
            self._leave(job)
        elif not job.prompt.jobs:
            self._prefiller.forget(job.prompt)

    def close(self) -> None:
        del self.calls, self._prefiller, self._cache

    def _decode(self, step: Step) -> list[Ended]:
        count = self._rows.count
        self.calls.lengths[:count] += 1
        over = self._write(slice(0, count), self.calls.decode(count))
        if len(over) > 1:
            order = {job: index for index, job in enumerate(step.rows)}
            over.sort(key=order.__getitem__)
        return [self._end(job) for job in over]

    def _prefill(self, step: Step) -> list[Ended]:
        over: set[Job] = set()
        for computed in self._prefiller.run(step.chunks, self._read, lambda: self._rows.count):
            over.update(self._fork(computed))
        jobs = [job for chunk in step.chunks if chunk.completes for job in chunk.prompt.jobs]
        return [self._end(job) for job in jobs if job in over]

    def _fork(self, computed: Computed) -> list[Job]:
        """Give each job of the completed prompts a row with a copy of its prompt, and write its first token."""
        start = self._rows.count
        prompts = [chunk.prompt for chunk in computed.chunks]
        joins = [(index, prompt.jobs[0]) for index, prompt in enumerate(prompts)]
        joins += [(index, job) for index, prompt in enumerate(prompts) for job in prompt.jobs[1:]]
        for index, job in joins:
            place = self._join(job)
            self.calls.lengths[place] = prompts[index].tokens
            self.calls.adapters[place] = self._adapters.get(job.inference.model, 0)
            self.calls.forks[place] = self._families + index, prompts[index].tokens
            if place != computed.row + index:
                self._cache.copy(computed.row + index, place, prompts[index].tokens)
        self._families = (self._families + len(prompts)) % FAMILIES
        source = [index for index, _ in joins]
        outputs = {name: values[source] for name, values in computed.outputs.items()}
        return self._write(slice(start, self._rows.count), outputs)

    def _join(self, job: Job) -> int:
        parked = self._parked.pop(job, None)
        place = self._rows.append(parked.row if parked else self._new_row(job))
        if parked:
            self._rows.restore(place, parked.tokens, parked.logprob)
        return place

    def _new_row(self, job: Job) -> Row:
        inference, contents = job.inference, self._contents
        request, prefix = contents.request(inference.query), contents.sequence(inference)
        sampling = request.sampling_of(inference.model)
        drawn = inference.continues.total_tokens if inference.continues else 0
        settings = settings_of(sampling, contents.key(inference), drawn, self._drawing.columns)
        growing = Growing(self._vocabulary, request.stop) if request.watched else None
        if growing and inference.continues:
            growing.begin(contents.written(inference.continues).tokens)
        budget = min(inference.budget, self._cache.length - len(prefix))
        form = self._form(request, inference)
        least = max(0, request.min_tokens - drawn)
        return Row(job, request, prefix, sampling, settings, budget, growing, form, least, drawn)

    def _form(self, request: Request, inference: Inference) -> Follower | None:
        """What follows the inference's text through the grammar, if it has one."""
        if request.grammar is None:
            return None
        before = self._contents.written(inference.continues).tokens if inference.continues else None
        return grammars_of(self._vocabulary).follow(request.grammar, self._drawing.columns, before)

    def _read(self, prompt: Prompt) -> tuple[Tokens, int]:
        """The tokens of a prompt and its expert's adapter; those of a preempted job hold what it had written."""
        job = prompt.jobs[0]
        adapter = self._adapters.get(job.inference.model, 0)
        if parked := self._parked.get(job):
            return np.concatenate([parked.row.prefix, parked.tokens]), adapter
        return self._contents.sequence(job.inference), adapter

    def _write(self, part: slice, outputs: Outputs) -> list[Job]:
        """Write the next token of some rows; returns the jobs that have ended or are lost, in the rows' order."""
        rows = self._rows
        tokens, logprobs = self._drawing.next(part, outputs)
        rows.book(part, tokens, logprobs)
        if self._head:
            rows.scores[part] = outputs["score_logit"]
        self.calls.ids[part, 0] = tokens
        over = (tokens[:, None] == self._ends).any(axis=1) & rows.ends[part]
        over |= rows.written[part] >= rows.budget[part]
        over |= ~np.isfinite(logprobs)
        if rows.shaped:
            over |= self._whole(part)
        if rows.watched:
            over |= self._watch(part)
        return [rows.rows[part.start + place].job for place in np.flatnonzero(over)] if over.any() else []

    def _whole(self, part: slice) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """True where a row's grammar lets nothing follow what it has written."""
        rows = self._rows.rows[part]
        return np.array([row.form is not None and row.form.whole for row in rows], bool)

    def _watch(self, part: slice) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Follow the text of watched rows; true where a stop string ends one."""
        rows, stopped = self._rows, np.zeros(part.stop - part.start, bool)
        for row in rows.watched:
            place = rows.place[row.job]
            if part.start <= place < part.stop and row.growing is not None:
                text = row.growing.push(int(rows.tokens[place, rows.written[place] - 1]))
                stopped[place - part.start] = row.growing.stopped
                row.request.hear(row.job.inference, text)
        return stopped

    def _end(self, job: Job) -> Candidate | Lost:
        """Take a job's row away; what it wrote becomes a candidate."""
        place = self._rows.place[job]
        row, tokens, logprob = self._rows.rows[place], self._rows.new_tokens(place), float(self._rows.logprob[place])
        value = self._head(float(self._rows.scores[place])) if self._head else None
        self._leave(job)
        if row.growing is not None:
            row.request.hear(job.inference, row.growing.rest())
        if not isfinite(logprob):
            stuck = row.form is not None and row.form.stuck
            why = "its tokens cannot write what the grammar wants" if stuck else "its logits are not finite"
            return Lost(job.inference, f"{job.inference.model}: {why}")
        ended = self._ended(row, tokens)
        notes = tuple(row.notes)
        return self._contents.add(job.inference, tokens, logprob, ended=ended, text=row.text, value=value, notes=notes)

    def _ended(self, row: Row, tokens: Tokens) -> bool:
        """Whether the text is whole: an end token, a stop string, or the query's own budget, not the inference's."""
        inference = row.job.inference
        before = inference.continues.total_tokens if inference.continues else 0
        whole = before + len(tokens) >= inference.query.max_new_tokens
        formed = row.form is not None and row.form.whole
        return whole or formed or tokens[-1] in self._ends or (row.growing is not None and row.growing.stopped)

    def _leave(self, job: Job) -> None:
        place = self._rows.place[job]
        moved = self._rows.remove(place)
        if moved is not None:
            calls = self.calls
            for array in (calls.ids, calls.lengths, calls.adapters, calls.forks):
                array[place] = array[moved]
            self._cache.copy(moved, place, int(calls.lengths[moved]))

    def _preempt(self, job: Job) -> None:
        """Keep what the job wrote, give up its memory."""
        if job not in self._rows.place:
            self._prefiller.forget(job.prompt)
            return
        place = self._rows.place[job]
        row = self._rows.rows[place]
        self._parked[job] = Parked(row, self._rows.new_tokens(place), float(self._rows.logprob[place]))
        self._leave(job)
