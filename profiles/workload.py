"""What is asked: when queries arrive, how long prompts and answers are."""

from __future__ import annotations

from math import pi, sin, tau
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from octavo.profiles.fact import Entry, Fact
from octavo.profiles.quantity import Fraction, PerSecond, Seconds


class Poisson(Entry):
    """Independent arrivals."""

    kind: Literal["poisson"]
    rate: PerSecond


class Gamma(Entry):
    """Gamma-distributed gaps; a cv above 1 comes in bursts."""

    kind: Literal["gamma"]
    rate: PerSecond
    cv: float = Field(gt=0, description="standard deviation over mean of the gaps")


class Weibull(Entry):
    """Weibull-distributed gaps."""

    kind: Literal["weibull"]
    rate: PerSecond
    cv: float = Field(gt=0)


class Diurnal(Entry):
    """Poisson with a rate that swings as a cosine over the period, `peak` times the mean at its highest."""

    kind: Literal["diurnal"]
    rate: PerSecond = Field(description="mean over the period")
    peak: float = Field(default=1.6, ge=1, le=2)
    period: Seconds = Field(default=86400.0, gt=0)
    peak_at: Seconds = Field(default=50400.0, description="after the start")

    def rate_at(self, time: float) -> float:
        """Queries per second at a time."""
        return self.rate * (1 + (self.peak - 1) * sin(tau * (time - self.peak_at) / self.period + pi / 2))


class ClosedLoop(Entry):
    """A number of clients; each waits for its answer, thinks (exponential, this mean), and asks again."""

    kind: Literal["closed_loop"]
    clients: int = Field(gt=0)
    think: Seconds = 0.0


class AtOnce(Entry):
    """A batch: everything is there at the start."""

    kind: Literal["at_once"]


class Recorded(Entry):
    """At these times after the start, in order."""

    kind: Literal["recorded"]
    times: tuple[Seconds, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for before, after in zip(self.times, self.times[1:], strict=False):
            if after < before:
                raise ValueError(f"times must not go back: {after:g} s follows {before:g} s")
        return self


class TraceFile(Entry):
    """Replay of a file: Mooncake JSONL (octavo's own form), Azure CSV or BurstGPT CSV."""

    kind: Literal["trace"]
    file: str
    format: Literal["mooncake", "azure", "burstgpt"] = "mooncake"
    speed: float = Field(default=1.0, gt=0, description="2 replays twice as fast")


Arrivals = Annotated[
    Poisson | Gamma | Weibull | Diurnal | ClosedLoop | AtOnce | Recorded | TraceFile, Field(discriminator="kind")
]


class Constant(Entry):
    """Always so many tokens."""

    kind: Literal["constant"]
    tokens: int = Field(gt=0)

    @property
    def mean(self) -> float:
        return float(self.tokens)


class Uniform(Entry):
    """Every length from min to max alike."""

    kind: Literal["uniform"]
    min: int = Field(gt=0)
    max: int = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must be at most max ({self.max})")
        return self

    @property
    def mean(self) -> float:
        return (self.min + self.max) / 2


class Lognormal(Entry):
    """Lognormal by mean and coefficient of variation, clipped to [min, max]."""

    kind: Literal["lognormal"]
    mean: float = Field(gt=0, description="tokens, before clipping")
    cv: float = Field(gt=0)
    min: int = Field(default=1, gt=0)
    max: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) must be at most max ({self.max})")
        return self


class Empirical(Entry):
    """A quantile table [[probability, tokens], ...] from 0 to 1; linear in between, rounded to whole tokens."""

    kind: Literal["empirical"]
    quantiles: tuple[tuple[Fraction, Annotated[float, Field(gt=0)]], ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _is_a_distribution(self) -> Self:
        probabilities, tokens = zip(*self.quantiles, strict=True)
        if probabilities[0] != 0 or probabilities[-1] != 1:
            raise ValueError("quantiles must begin at probability 0 and end at 1")
        if list(probabilities) != sorted(set(probabilities)) or list(tokens) != sorted(tokens):
            raise ValueError("quantiles must rise in probability and must not fall in tokens")
        return self

    @property
    def mean(self) -> float:
        pairs = zip(self.quantiles, self.quantiles[1:], strict=False)
        return sum((p1 - p0) * (t0 + t1) / 2 for (p0, t0), (p1, t1) in pairs)


class FromTrace(Entry):
    """What the arrivals' trace file says."""

    kind: Literal["trace"]


Lengths = Annotated[Constant | Uniform | Lognormal | Empirical | FromTrace, Field(discriminator="kind")]


class Workload(Fact):
    """Arrivals and lengths of a run's queries. Exactly `queries`, or as many as arrive within `duration`."""

    arrivals: Arrivals
    prompt_tokens: Lengths
    answer_tokens: Lengths
    length_correlation: float = Field(default=0.0, ge=-1, le=1, description="Gaussian copula, prompt and answer length")
    shared_prefix_tokens: int = Field(default=0, ge=0, description="at the head of every prompt, the same in all")
    queries: int | None = Field(default=None, gt=0)
    duration: Seconds | None = Field(default=None, gt=0)
    warmup: Fraction = Field(default=0.1, description="share of the queries that statistics leave out")

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        wrong = []
        if self.queries is not None and self.duration is not None:
            wrong.append("queries and duration exclude each other")
        if not isinstance(self.arrivals, TraceFile):
            lengths = {"prompt_tokens": self.prompt_tokens, "answer_tokens": self.answer_tokens}
            read = [key for key, drawn in lengths.items() if isinstance(drawn, FromTrace)]
            wrong += [f"{key}: kind trace needs arrivals of kind trace" for key in read]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @property
    def rate(self) -> float | None:
        """Mean queries per second, or None where it depends on the system or a file."""
        return getattr(self.arrivals, "rate", None)
