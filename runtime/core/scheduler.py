"""The scheduler: what one model's batch on one device does next, by vLLM V1's rules or, prompts first, by SGLang's.

Running rows first, then the prompts under way, then waiting ones first come first served, all within one budget of
tokens per step; a prompt is admitted only when its whole input fits; when decodes need blocks that are not there, the
newest is preempted and computed again later, finding what is left of its own blocks. Nothing is preempted to admit.

`next_step()` proposes and changes nothing, somebody runs the step, `commit()` books it. A step of decodes alone may
repeat: nothing changes until a row stops or someone arrives, so a simulator commits many repeats at once. All rows
advance together, so a row's length is a difference of clocks and a commit costs what changed, not what runs. Where
prompts go first, whatever may be prefilled is prefilled while the decodes stand still, and the clock with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import ItemsView, Iterable, KeysView, Sequence
from dataclasses import dataclass
from typing import Final

from octavo.runtime.core.kv import KVLedger
from octavo.runtime.core.query import Inference


@dataclass(frozen=True, slots=True)
class Limits:
    """What a batch may hold.

    `kv_blocks` is the KV cache in blocks of `block_tokens`. In paged memory (`paged`) the samples of a prompt share its
    full blocks, and a preempted job may find its own blocks again; in contiguous rows each sample holds a copy, cached
    prefixes are stored beside the rows, and a preempted row is lost. `hash_tokens` is the size of the chunks that
    `Query.prefix` names. Unless `chunked`, a prompt is computed whole in one step, or waits. With `prefill_first`,
    prompts and decodes never share a step.
    """

    kv_blocks: int
    block_tokens: int = 16
    max_rows: int = 256
    max_step_tokens: int = 2048
    paged: bool = True
    prefix_caching: bool = True
    hash_tokens: int = 512
    chunked: bool = True
    prefill_first: bool = False

    def __post_init__(self) -> None:
        if self.max_step_tokens < self.max_rows:
            raise ValueError(
                f"max_step_tokens ({self.max_step_tokens}) must be at least max_rows ({self.max_rows}): "
                "every running row writes one token a step"
            )


class Prompt:
    """Tokens to prefill once: for one job, or for all samples of a query that fork from it."""

    __slots__ = (
        "computed",
        "held",
        "jobs",
        "key",
        "left_after",
        "own_blocks",
        "prefix",
        "reserved",
        "rows",
        "shared",
        "tail",
        "tokens",
    )

    def __init__(
        self,
        key: int,
        tokens: int,
        prefix: tuple[int, ...],
        shared: int = 0,
        tail: int = 0,
        left_after: int | None = None,
    ) -> None:
        self.key = key
        self.tokens = tokens
        self.prefix = prefix
        self.shared = shared  # blocks that its rows share for as long as they run
        self.tail = tail  # and those that each of them holds for itself from the fork on
        self.left_after = left_after  # preempted: shared chunks before the run of blocks that it left behind
        self.jobs: list[Job] = []  # those that wait for it; empty once it is computed
        self.computed = 0
        self.held: list[int] = []  # names of the shared chunks that it holds
        self.own_blocks = 0
        self.reserved = 0  # own blocks and those of the chunks that it holds
        self.rows = 0  # jobs that decode from it


class Job:
    """An inference under way. `tokens_at(clock)` is what it has written; the clock counts the steps of its decodes."""

    __slots__ = ("inference", "joined_at", "key", "prompt", "written")

    def __init__(self, key: int, inference: Inference, prompt: Prompt) -> None:
        self.key = key
        self.inference = inference
        self.prompt = prompt
        self.joined_at = -1
        self.written = 0

    def tokens_at(self, clock: int) -> int:
        """New tokens written by the time the clock shows this."""
        return self.written + (clock - self.joined_at if self.joined_at >= 0 else 0)

    def length_at(self, clock: int) -> int:
        """Tokens whose KV it holds; the newest token's is written by the next step."""
        return self.prompt.tokens + clock - self.joined_at


@dataclass(slots=True, eq=False, init=False)
class Chunk:
    """A part of a prompt that a step prefills: tokens `start` to `start + tokens`."""

    prompt: Final[Prompt]
    start: Final[int]
    tokens: Final[int]

    def __init__(self, prompt: Prompt, start: int, tokens: int) -> None:
        self.prompt = prompt
        self.start = start
        self.tokens = tokens

    @property
    def completes(self) -> bool:
        return self.start + self.tokens == self.prompt.tokens


@dataclass(slots=True, eq=False, init=False)
class Step:
    """One forward pass, and how often it may repeat unchanged.

    `decodes` rows read `context` tokens of KV in all (each row's own length, before the step) and write one token
    each; the first sampled token of a completed prompt comes out of its last chunk. `preempted` jobs lose their memory
    before the step runs. `rows` are the decoding jobs, a live view that `commit` changes; none where they stand still.
    `ticks` is how far the clock goes in one repeat: not at all while decodes stand still.
    """

    decodes: Final[int]
    context: Final[int]
    chunks: Final[tuple[Chunk, ...]]
    repeats: Final[int]
    rows: Final[KeysView[Job]]
    preempted: Final[tuple[Job, ...]]
    admitted: Final[int]
    ticks: Final[int]

    def __init__(
        self,
        decodes: int,
        context: int,
        chunks: tuple[Chunk, ...],
        repeats: int,
        rows: KeysView[Job],
        preempted: tuple[Job, ...] = (),
        admitted: int = 0,
        ticks: int = 1,
    ) -> None:
        self.decodes = decodes
        self.context = context
        self.chunks = chunks
        self.repeats = repeats
        self.rows = rows
        self.preempted = preempted
        self.admitted = admitted
        self.ticks = ticks

    @property
    def prefill_tokens(self) -> int:
        return sum(chunk.tokens for chunk in self.chunks)

    @property
    def tokens(self) -> int:
        return self.decodes + self.prefill_tokens


NOBODY: Final[KeysView[Job]] = dict[Job, None]().keys()
MANY: Final = 1 << 30
"""Repeats of a step beyond which nobody asks."""


class Scheduler:
    """Continuous batching of one model on one device."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.kv = KVLedger(limits.kv_blocks, limits.block_tokens, limits.hash_tokens, limits.prefix_caching)
        self.clock = 0
        self.context = 0
        self.waiting: deque[Prompt] = deque()
        self.prefilling: list[Prompt] = []
        self.decoding: dict[Job, None] = {}
        self._rows = self.decoding.keys()
        self._jobs: dict[Inference, Job] = {}
        self._prompt_rows = 0
        self._keys = 0
        self._chunk_blocks = limits.hash_tokens // limits.block_tokens

    def __len__(self) -> int:
        """Inferences submitted and neither finished nor withdrawn."""
        return len(self._jobs)

    @property
    def waiting_rows(self) -> int:
        return sum(len(prompt.jobs) for prompt in self.waiting)

    def fits(self, inference: Inference, rows: int = 1) -> bool:
        """Whether so many samples can ever run here together: the prompt's copies, and one in its longest form."""
        kv, limits = self.kv, self.limits
        prompt, longest = inference.prompt_tokens, inference.prompt_tokens + inference.budget
        if rows > limits.max_rows or not (limits.chunked or longest <= limits.max_step_tokens):
            return False
        shared, tail = self._blocks(prompt)
        beside = 0 if limits.paged else len(self._usable_prefix(inference)) * self._chunk_blocks
        return max(shared + rows * tail, kv.blocks(longest)) + beside <= kv.capacity

    def obstacle(self, inference: Inference) -> str:
        """Why an inference that does not fit can never run here."""
        limits, prompt, new = self.limits, inference.prompt_tokens, inference.budget
        if not limits.chunked and prompt + new > limits.max_step_tokens:
            return (
                f"{prompt} prompt and {new} new tokens are more than a step takes ({limits.max_step_tokens}), and "
                "without chunked prefill a prompt is computed in one step, after a preemption with what was written"
            )
        room = f"{limits.kv_blocks} KV blocks of {limits.block_tokens} tokens"
        return f"{prompt} prompt and {new} new tokens do not fit {room}"

    def submit(self, inferences: Sequence[Inference]) -> None:
        """Queue inferences that share one prompt (the samples of one query); it is prefilled once for all of them.

        More samples than ever fit together go in parts, each with a prefill of its own. Raises ValueError when not
        even one could run here.
        """
        first, most = inferences[0], len(inferences)
        while most and not self.fits(first, most):
            most -= 1
        if not most:
            raise ValueError(f"query {first.query.id}: {self.obstacle(first)}")
        group = inferences if isinstance(inferences, list) else list(inferences)
        if most == len(group):
            self._queue(group)
            return
        for start in range(0, len(group), most):
            self._queue(group[start : start + most])

    def _queue(self, inferences: list[Inference]) -> None:
        first = inferences[0]
        shared, tail = self._blocks(first.prompt_tokens)
        prompt = Prompt(self._key(), first.prompt_tokens, self._usable_prefix(first), shared, tail)
        for inference in inferences:
            job = Job(self._key(), inference, prompt)
            prompt.jobs.append(job)
            self._jobs[inference] = job
        self.waiting.append(prompt)

    def jobs(self) -> ItemsView[Inference, Job]:
        """All inferences here, in the order in which they came."""
        return self._jobs.items()

    def job(self, inference: Inference) -> Job | None:
        return self._jobs.get(inference)

    # Proposing.

    def next_step(self, most: int = MANY) -> Step | None:
        """The next forward pass, which may repeat up to `most` times; None when nothing can run. Changes nothing."""
        if self.limits.prefill_first and self.decoding and (step := self._prompts_alone()):
            return step
        kv = self.kv
        demand = kv.demand(self.clock)
        if demand > kv.free:
            return self._step_after_preemption()
        rows = len(self.decoding)
        if self.prefilling or self.waiting:
            chunks, budget = self._continue_prompts(self.limits.max_step_tokens - rows)
            admitted = self._admissible(chunks, budget, kv.free - demand) if self.waiting else 0
            if chunks:
                return Step(rows, self.context, tuple(chunks), 1, self._rows, (), admitted)
        if not rows:
            return None
        return Step(rows, self.context, (), kv.steps_within(self.clock, kv.free, most), self._rows)

    def _prompts_alone(self) -> Step | None:
        """A step of whatever may be prefilled now, while the decodes stand still; room for their next one is kept."""
        kv = self.kv
        chunks, budget = self._continue_prompts(self.limits.max_step_tokens)
        free = kv.free - kv.demand(self.clock)
        admitted = self._admissible(chunks, budget, free) if self.waiting else 0
        return Step(0, 0, tuple(chunks), 1, NOBODY, (), admitted, 0) if chunks else None

    def _step_after_preemption(self) -> Step:
        """Give up the newest until the rest can go on; nobody is admitted in such a step."""
        kv, free, due = self.kv, self.kv.free, self.kv.demand(self.clock)
        victims: list[Job] = []
        dropped: set[Prompt] = set()
        for prompt in reversed(self.prefilling):
            if due <= free:
                break
            victims.extend(reversed(prompt.jobs))
            dropped.add(prompt)
            free += prompt.reserved - self._kept_by_others(prompt)
        gone: dict[Prompt, int] = {}
        context = self.context
        for job in reversed(self.decoding):
            if due <= free:
                break
            victims.append(job)
            gone[job.prompt] = gone.get(job.prompt, 0) + 1
            length = job.length_at(self.clock)
            context -= length
            due -= length % kv.block_tokens == 0
            free += self._private_blocks(job)
            if gone[job.prompt] == job.prompt.rows:
                free += job.prompt.reserved - self._kept_by_others(job.prompt)
        decodes = len(self.decoding) - sum(gone.values())
        chunks, _ = self._continue_prompts(self.limits.max_step_tokens - decodes, dropped)
        return Step(decodes, context, tuple(chunks), 1, self._rows, tuple(victims), 0)

    def _kept_by_others(self, prompt: Prompt) -> int:
        """Blocks of shared chunks that stay in use after this prompt lets go."""
        return self._chunk_blocks * sum(self.kv.holders(name) > 1 for name in prompt.held)

    def _continue_prompts(self, budget: int, dropped: Iterable[Prompt] = ()) -> tuple[list[Chunk], int]:
        chunks = []
        for prompt in self.prefilling:
            if budget and prompt not in dropped:
                tokens = min(budget, prompt.tokens - prompt.computed)
                chunks.append(Chunk(prompt, prompt.computed, tokens))
                budget -= tokens
        return chunks, budget

    def _admissible(self, chunks: list[Chunk], budget: int, free: int) -> int:
        """Append the first chunk of each waiting prompt that may start now; returns how many."""
        admitted = 0
        rows = len(self.decoding) + self._prompt_rows
        for prompt in self.waiting:
            rows += len(prompt.jobs)
            if not budget or rows > self.limits.max_rows:
                break
            start, resident = self._resident(prompt)
            free -= self._reservation(prompt) - resident
            if free < 0:
                break
            if prompt.tokens - start > budget and not self.limits.chunked:
                break
            tokens = min(budget, prompt.tokens - start)
            chunks.append(Chunk(prompt, start, tokens))
            budget -= tokens
            admitted += 1
        return admitted

    def _resident(self, prompt: Prompt) -> tuple[int, int]:
        """Tokens of a prompt that need no computing, and blocks among them that are in use already.

        At least one token is always computed, for its logits. Two prompts admitted in one step that find the same idle
        chunk each reserve it, which errs on the safe side.
        """
        kv = self.kv
        names = prompt.prefix[: (prompt.tokens - 1) // kv.hash_tokens]
        hits, in_use = kv.cached_chunks(names) if names else (0, 0)
        tokens = hits * kv.hash_tokens
        left_after = prompt.left_after
        if left_after is not None and hits >= left_after and (left := kv.remembered(prompt.key)):
            behind = left_after * kv.hash_tokens
            whole = (prompt.tokens - 1 - behind) // kv.block_tokens
            tokens = max(tokens, behind + min(left, whole) * kv.block_tokens)
        return min(tokens, prompt.tokens - 1), in_use * self._chunk_blocks

    # Booking.

    def commit(self, step: Step, repeats: int = 1, stopped: Sequence[Job] = ()) -> None:
        """Book a step that has run `repeats` times; `stopped` jobs wrote their last token in the last of them."""
        if not 1 <= repeats <= step.repeats:
            raise ValueError(f"a step that may repeat {step.repeats} times was committed {repeats} times")
        for job in step.preempted:
            self._preempt(job)
        arrivals = step.chunks[len(step.chunks) - step.admitted :] if step.admitted else ()
        for chunk in arrivals:
            self._find(chunk)
        if step.decodes:
            self.kv.take(self.kv.demand(self.clock, repeats))
        for chunk in arrivals:
            self._admit(chunk.prompt)
        self.clock += repeats * step.ticks
        self.context += step.decodes * repeats
        for chunk in step.chunks:
            self._compute(chunk)
        for job in stopped:
            self._finish(job)

    def withdraw(self, inference: Inference) -> bool:
        """Forget an inference between two steps; everything it held is free again. False when it is not here."""
        job = self._jobs.get(inference)
        if job is None:
            return False
        if job in self.decoding:
            self._finish(job)
            return True
        del self._jobs[inference]
        prompt = job.prompt
        prompt.jobs.remove(job)
        admitted = prompt in self.prefilling
        self._prompt_rows -= admitted
        if not prompt.jobs:
            if admitted:
                self.prefilling.remove(prompt)
                self._release(prompt)
            else:
                self.waiting.remove(prompt)
        return True

    def _find(self, chunk: Chunk) -> None:
        """Hold what is resident of a prompt about to be admitted, before anything is evicted for others."""
        kv, prompt = self.kv, chunk.prompt
        prompt.computed = chunk.start
        for name in prompt.prefix[: chunk.start // kv.hash_tokens]:
            if not kv.share(name):
                break
            prompt.held.append(name)
        prompt.reserved = self._reservation(prompt)
        needed = prompt.reserved - len(prompt.held) * self._chunk_blocks
        found = 0 if prompt.left_after is None else kv.recall(prompt.key)
        prompt.own_blocks = min(found, needed)
        kv.give(found - prompt.own_blocks)

    def _admit(self, prompt: Prompt) -> None:
        """Reserve the whole input, less what was found."""
        self.prefilling.append(self.waiting.popleft())
        self._prompt_rows += len(prompt.jobs)
        needed = prompt.reserved - len(prompt.held) * self._chunk_blocks - prompt.own_blocks
        self.kv.take(needed)
        prompt.own_blocks += needed

    def _compute(self, chunk: Chunk) -> None:
        prompt, kv = chunk.prompt, self.kv
        prompt.computed += chunk.tokens
        if prompt.prefix:
            whole = min(prompt.computed // kv.hash_tokens, len(prompt.prefix))
            for name in prompt.prefix[len(prompt.held) : whole]:
                if not kv.publish(name):
                    break
                prompt.held.append(name)
                prompt.own_blocks -= self._chunk_blocks
        if chunk.completes:
            self._fork(prompt)

    def _fork(self, prompt: Prompt) -> None:
        """The prompt is computed: each of its jobs samples a first token and decodes on its own from here."""
        self.prefilling.remove(prompt)
        self._prompt_rows -= len(prompt.jobs)
        prompt.rows = len(prompt.jobs)
        private = prompt.tail * prompt.rows
        prompt.own_blocks -= private
        prompt.reserved -= private
        for job in prompt.jobs:
            job.joined_at = self.clock
            job.written += 1
            self.decoding[job] = None
            self.context += prompt.tokens
            self.kv.enter(prompt.tokens, self.clock)
        prompt.jobs = []

    def _finish(self, job: Job) -> None:
        del self._jobs[job.inference]
        self.kv.give(self._detach(job))

    def _preempt(self, job: Job) -> None:
        """Take a job's memory away and put it first in line, to compute again what it had."""
        prompt = job.prompt
        if job not in self.decoding:
            self._suspend(prompt)
            return
        tokens = prompt.tokens + self.clock - job.joined_at + 1
        shared, tail = self._blocks(tokens)
        again = Prompt(self._key(), tokens, prompt.prefix, shared, tail, len(prompt.held))
        owner = again.key if prompt.rows == 1 and self.limits.paged else None
        self.kv.give(self._detach(job, owner), owner)
        job.prompt = again
        again.jobs.append(job)
        self.waiting.appendleft(again)

    def _suspend(self, prompt: Prompt) -> None:
        """Preempt a prompt that is still being prefilled, with all that wait for it (once, though each is a victim)."""
        if prompt not in self.prefilling:
            return
        self.prefilling.remove(prompt)
        self._prompt_rows -= len(prompt.jobs)
        prompt.left_after = len(prompt.held)
        behind = len(prompt.held) * self._chunk_blocks
        kept = prompt.computed // self.kv.block_tokens - behind if self.limits.paged else 0
        self.kv.give(prompt.own_blocks - kept)
        prompt.own_blocks = kept
        self._release(prompt, owner=prompt.key)
        prompt.computed = 0
        self.waiting.appendleft(prompt)

    def _detach(self, job: Job, owner: int | None = None) -> int:
        """Take a row out of the batch; returns the private blocks that the caller gives back."""
        private = self._private_blocks(job)
        prompt = job.prompt
        del self.decoding[job]
        self.context -= job.length_at(self.clock)
        self.kv.leave(prompt.tokens, job.joined_at)
        job.written = job.tokens_at(self.clock)
        job.joined_at = -1
        prompt.rows -= 1
        if not prompt.rows:
            self._release(prompt, owner)
        return private

    def _release(self, prompt: Prompt, owner: int | None = None) -> None:
        for name in reversed(prompt.held):
            self.kv.unshare(name)
        self.kv.give(prompt.own_blocks, owner)
        prompt.held = []
        prompt.own_blocks = prompt.reserved = 0

    # Block arithmetic.

    def _usable_prefix(self, inference: Inference) -> tuple[int, ...]:
        """The named chunks that the prompt really holds; none where nothing is cached."""
        prefix = inference.prefix
        return prefix[: inference.prompt_tokens // self.kv.hash_tokens] if prefix and self.kv.caching else ()

    def _blocks(self, tokens: int) -> tuple[int, int]:
        """Of a prompt: blocks that its rows share (the full ones, where memory is paged), and others that each has."""
        blocks = self.kv.blocks(tokens)
        shared = tokens // self.kv.block_tokens if self.limits.paged else 0
        return shared, blocks - shared

    def _reservation(self, prompt: Prompt) -> int:
        """Blocks that a prompt and its rows' copies of it need; in contiguous rows, cached chunks come on top."""
        beside = 0 if self.limits.paged else len(prompt.prefix) * self._chunk_blocks
        return prompt.shared + len(prompt.jobs) * prompt.tail + beside

    def _private_blocks(self, job: Job) -> int:
        return self.kv.blocks(job.length_at(self.clock)) - job.prompt.shared

    def _key(self) -> int:
        self._keys += 1
        return self._keys
