"""Trace records: one per query and one per inference, the same for measured and simulated runs.

Times are seconds on the run's own clock, which starts at zero. None means that it did not happen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Outcome = Literal["answered", "rejected", "failed"]
End = Literal["finished", "withdrawn", "lost"]


def _made_again(record: Any) -> tuple[Any, ...]:
    """How pickle makes a record in another process: compiled, its class is made by its arguments alone."""
    return type(record), tuple(getattr(record, each.name) for each in fields(record))


@dataclass(slots=True)
class RunRecord:
    """The head of a trace: who was asked by which policy on which devices, enough to run the same load again.

    `devices` names the models that take turns on each device. `limits` are the fields of each model's Limits.
    """

    policy: str
    settings: dict[str, float | int | str]
    experts: tuple[str, ...]
    samples_per_expert: int
    value_model: str | None
    devices: dict[str, list[str]]
    limits: dict[str, dict[str, int | bool]]
    min_candidates: int = 1
    deadline: float | None = None
    seed: int = 0
    source: Literal["measured", "simulated"] = "measured"
    machine: dict[str, str] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again(self)


@dataclass(slots=True, init=False)
class InferenceRecord:
    """One inference: when it was asked for, first scheduled, wrote its first token and ended, and on which device.

    `value` is the score that a judge gave, or that an expert's own head gave; `answer` the label that a vote counts.
    `judges` is the expert whose candidate of that `sample` a judge scores.
    A withdrawn inference has written `new_tokens` of an unknown number.
    """

    query: int
    model: str
    sample: int
    judge: bool
    device: str
    prompt_tokens: int
    new_tokens: int
    submitted: float
    scheduled: float | None
    first_token: float | None
    ended: float | None
    end: End
    preemptions: int
    value: float | None
    mean_logprob: float | None
    answer: str | None
    correct: bool | None
    judges: str | None

    def __init__(
        self,
        query: int,
        model: str,
        sample: int,
        judge: bool,
        device: str,
        prompt_tokens: int,
        new_tokens: int,
        submitted: float,
        scheduled: float | None = None,
        first_token: float | None = None,
        ended: float | None = None,
        end: End = "finished",
        preemptions: int = 0,
        value: float | None = None,
        mean_logprob: float | None = None,
        answer: str | None = None,
        correct: bool | None = None,
        judges: str | None = None,
    ) -> None:
        self.query = query
        self.model = model
        self.sample = sample
        self.judge = judge
        self.device = device
        self.prompt_tokens = prompt_tokens
        self.new_tokens = new_tokens
        self.submitted = submitted
        self.scheduled = scheduled
        self.first_token = first_token
        self.ended = ended
        self.end = end
        self.preemptions = preemptions
        self.value = value
        self.mean_logprob = mean_logprob
        self.answer = answer
        self.correct = correct
        self.judges = judges

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again(self)


@dataclass(slots=True, init=False)
class QueryRecord:
    """One query: arrival, answer, and what it took.

    `first_token` is when the earliest candidate wrote its first token. `barrier_wait` is the last candidate's time
    after the median's.
    """

    query: int
    arrival: float
    prompt_tokens: int
    answer_tokens: int
    first_token: float | None
    ended: float | None
    outcome: Outcome
    reason: str
    chosen: str | None
    value: float | None
    candidates: int
    total_tokens: int
    wasted_tokens: int
    barrier_wait: float
    degraded: bool
    max_new_tokens: int
    prefix: tuple[int, ...]
    correct: bool | None

    def __init__(
        self,
        query: int,
        arrival: float,
        prompt_tokens: int,
        answer_tokens: int = 0,
        first_token: float | None = None,
        ended: float | None = None,
        outcome: Outcome = "answered",
        reason: str = "",
        chosen: str | None = None,
        value: float | None = None,
        candidates: int = 0,
        total_tokens: int = 0,
        wasted_tokens: int = 0,
        barrier_wait: float = 0.0,
        degraded: bool = False,
        max_new_tokens: int = 0,
        prefix: tuple[int, ...] = (),
        correct: bool | None = None,
    ) -> None:
        self.query = query
        self.arrival = arrival
        self.prompt_tokens = prompt_tokens
        self.answer_tokens = answer_tokens
        self.first_token = first_token
        self.ended = ended
        self.outcome = outcome
        self.reason = reason
        self.chosen = chosen
        self.value = value
        self.candidates = candidates
        self.total_tokens = total_tokens
        self.wasted_tokens = wasted_tokens
        self.barrier_wait = barrier_wait
        self.degraded = degraded
        self.max_new_tokens = max_new_tokens
        self.prefix = prefix
        self.correct = correct

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again(self)

    @property
    def latency(self) -> float | None:
        return None if self.ended is None else self.ended - self.arrival

    @property
    def ttft(self) -> float | None:
        return None if self.first_token is None else self.first_token - self.arrival


@dataclass(slots=True)
class StepRecord:
    """One forward pass of one device (or several equal ones in a row): its batch, and the seconds it took in all."""

    device: str
    start: float
    seconds: float
    decodes: int
    context: int
    prefill_tokens: int
    repeats: int = 1
    preempted: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again(self)


Record = RunRecord | InferenceRecord | QueryRecord | StepRecord
KINDS: dict[str, type[Record]] = {
    "run": RunRecord,
    "inference": InferenceRecord,
    "query": QueryRecord,
    "step": StepRecord,
}
NAMES = {kind: name for name, kind in KINDS.items()}
TUPLES = ("experts", "prefix")  # of the fields of a record those that JSON makes a list of


def to_lines(records: Iterable[Record]) -> Iterator[str]:
    """JSON Lines, each record with its `kind` first."""
    for record in records:
        yield json.dumps({"kind": NAMES[type(record)], **asdict(record)}, separators=(",", ":"))


def from_lines(lines: Iterable[str], source: str = "trace") -> Iterator[Record]:
    """The records of a JSON Lines trace. Raises ValueError naming the line and what is wrong with it."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            kind = KINDS[row.pop("kind")]
            for key in TUPLES:
                if key in row:
                    row[key] = tuple(row[key])
            yield kind(**row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{source}:{number}: not a trace record ({error}); kinds are {', '.join(KINDS)}") from None
