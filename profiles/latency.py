"""Measured step times of one model on one machine: what `octavo measure` writes and a latency table reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from octavo.profiles.errors import ConfigError
from octavo.profiles.quantity import Precision


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parts(_Facts):
    """Seconds of a step inside of the model's calls, and in the interpreter, which one thread holds at a time."""

    computing: float = Field(gt=0)
    hosting: float = Field(gt=0)


class StepTime(_Facts):
    """The time of one kind of step: `decodes` rows that read `context` KV tokens in all, beside `prefill_tokens`.

    `prefill_rows` prompts share the prefill tokens; `past` KV tokens in all were there before them. Seconds are of the
    whole step as the engine's driver sees it: the median, and half the interquartile range. Where lanes share a
    process, its parts while it runs `alone` and `beside` others; what it waits for the interpreter is in neither.
    """

    decodes: int = Field(ge=0)
    context: int = Field(ge=0)
    prefill_tokens: int = Field(ge=0)
    prefill_rows: int = Field(ge=0)
    past: int = Field(default=0, ge=0)
    seconds: float = Field(gt=0)
    spread: float = Field(default=0.0, ge=0)
    samples: int = Field(default=1, ge=1)
    alone: Parts | None = None
    beside: Parts | None = None


Pair = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
"""Of what a step computes and of what it holds the interpreter for."""


class HostTimes(_Facts):
    """What is known beside the parts of steps, where lanes share an interpreter; seconds of one model on it.

    `arrival` opens a query, and `start` each inference that it begins with; its lane knows of it `post` seconds later.
    `result` hears of an inference that has ended. A step after a `rest` computes, and holds
    the interpreter, so many seconds longer: caches are cold. A decode of the model that took the step before as well
    computes only `again` times as long. Who has waited for the interpreter has it after a `handover`. Of like steps, of
    `decodes` and of those that prefill, how many times their mean the two parts were, a pair for each of as many steps.
    """

    arrival: float = Field(default=0.0, ge=0)
    start: float = Field(default=0.0, ge=0)
    post: float = Field(default=0.0, ge=0)
    result: float = Field(default=0.0, ge=0)
    rest: Pair = (0.0, 0.0)
    again: float = Field(default=1.0, gt=0)
    handover: float = Field(default=0.0, ge=0)
    decodes: list[Pair] = Field(default_factory=list)
    prefills: list[Pair] = Field(default_factory=list)


class Pace(_Facts):
    """How many times as long as on the mean the steps of each lane took, `seconds` after `seconds`, in served loads.

    What is of one moment stands at one place in all lanes. The mean of all is one.
    """

    seconds: float = Field(gt=0)
    lanes: list[list[Annotated[float, Field(gt=0)]]] = Field(min_length=1)

    @model_validator(mode="after")
    def _of_one_length(self) -> Pace:
        if len({len(lane) for lane in self.lanes}) != 1 or not self.lanes[0]:
            raise ValueError("pace: every lane needs as many moments as the others, and at least one")
        return self


class LatencyProfile(_Facts):
    """Step times of one model (or of all experts that share its graph), and how they were taken.

    `kind` says what the model does in a step: decoders prefill and decode, judges only prefill. Overheads are seconds
    outside the forward pass: per step, per inference (tokenizing, admission), per query (join, selection).
    """

    name: str
    model: str
    kind: str = Field(default="decoder", pattern="^(decoder|judge)$")
    hardware: str
    provider: str
    precision: str
    threads: int = Field(ge=1)
    concurrent: int = Field(default=1, ge=1, description="devices of this machine that were kept busy meanwhile")
    measured_on: str = Field(description="date, ISO 8601")
    machine: dict[str, str] = Field(description="processor, memory, operating system, versions")
    steps: list[StepTime] = Field(min_length=1)
    step_overhead: float = Field(default=0.0, ge=0)
    inference_overhead: float = Field(default=0.0, ge=0)
    query_overhead: float = Field(default=0.0, ge=0)
    host: HostTimes | None = Field(default=None, description="where lanes share a process")
    pace: Pace | None = Field(default=None, description="how it swung while loads were served for the calibration")
    weight_bytes: int = Field(default=0, ge=0)
    kv_bytes_per_token: int = Field(default=0, ge=0)
    kv_precision: Precision | None = Field(default=None, description="of what the cache holds, where it is known")
    peak_memory_bytes: int = Field(default=0, ge=0)
    watts: float | None = Field(default=None, description="mean power meanwhile, where the machine says")
    coefficients: dict[str, float] = Field(default_factory=dict, description="of a fit over these steps, in seconds")
    residuals: dict[str, float] = Field(default_factory=dict, description="of that fit: mape, p90, worst")


class FittedLatency(BaseModel):
    """What was fitted to many machines, and the source.

    Of what was not in the fit, `error` is the mean relative error; `band` says by what shares nine in ten of the times
    were shorter, and longer, than predicted.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    description: str = ""
    error: float = Field(gt=0)
    band: tuple[float, float]
    source: str = Field(min_length=3)
    date: str


def read_latency(path: Path) -> LatencyProfile:
    """A latency profile from a JSON file. Raises ConfigError naming the file and each wrong key."""
    try:
        return LatencyProfile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such latency profile; `octavo measure` writes one") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
        raise ConfigError(f"{path}: {wrong}") from None
