"""What a report needs to know of each run: an evaluation, a simulation, a validation, a measurement, a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from octavo.profiles.latency import LatencyProfile

Amount = Annotated[float, Field(ge=0, le=1e15)]
"""Seconds, USD, tokens, devices: none of them is negative, and none is beyond all measure."""


class _Facts(BaseModel):
    """Frozen, finite numbers; documents may say more than a report needs."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Estimate(_Facts):
    """A value and its 95 % interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


class Measured(_Facts):
    """One policy as it was run: how often it was right, and what it took here."""

    key: str
    label: str
    accuracy: Estimate
    inferences_per_query: Amount | None = None
    tokens_per_query: Amount | None = None
    seconds_per_query: Amount | None = None
    note: str = ""


class Bin(_Facts):
    """Candidates whose scores were alike: what the value model said, and how many were right."""

    said: float = Field(ge=0, le=1)
    right: float = Field(ge=0, le=1)
    count: int = Field(gt=0)


class Comparison(_Facts):
    """The ensemble's accuracy less a rival's, query by query, and its tokens over the rival's."""

    rival: str
    difference: Estimate
    tokens_ratio: Amount | None = None


class Evaluation(_Facts):
    """Every policy over the same held-out queries. `statements` is what the evaluation itself says of the ensemble."""

    source: str
    queries: int = Field(gt=0)
    policies: tuple[Measured, ...] = Field(min_length=1)
    value_auc: Estimate | None = None
    value_auc_within: float | None = None
    reliability: tuple[Bin, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    statements: tuple[str, ...] = ()
    machine: Mapping[str, str] = Field(default_factory=dict)


class Track(_Facts):
    """One device over time; the lists are equally long, and those that nobody recorded are empty."""

    device: str
    time: tuple[Amount, ...] = Field(min_length=1)
    utilisation: tuple[Amount, ...] = ()
    batch: tuple[Amount, ...] = ()
    kv: tuple[Amount, ...] = ()
    queue: tuple[Amount, ...] = ()
    watts: tuple[Amount, ...] = ()


class Band(_Facts):
    """By what shares steps may be shorter, and longer, than estimated."""

    shorter: Amount
    longer: Amount


class Line(_Facts):
    """A scenario or baseline as simulated: metrics by name, and USD per query by what they are paid for.

    `key` names it in figures; `label` says what it is. `overloaded` says why its latencies mean nothing, `band` how far
    off its step times may be; `intervals` what its estimates' own hold.
    """

    key: str
    label: str = ""
    metrics: Mapping[str, Estimate]
    costs: Mapping[str, Amount] = Field(default_factory=dict)
    latencies: tuple[Amount, ...] = ()
    tracks: tuple[Track, ...] = ()
    devices: str = ""
    notes: tuple[str, ...] = ()
    overloaded: str | None = None
    latency_model: str = ""
    band: Band | None = None
    intervals: str = "seeds"


class Simulation(_Facts):
    """A scenario's lines, then its baselines. `scenario` is what `Scenario.dump` gives.

    The first line is the scenario itself; it goes by the name of its policy, as it does in an evaluation.
    """

    source: str
    name: str
    description: str = ""
    lines: tuple[Line, ...] = Field(min_length=1)
    scenario: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def steady(self) -> tuple[Line, ...]:
        """The lines that keep up with their traffic."""
        return tuple(line for line in self.lines if not line.overloaded)


class Compared(_Facts):
    """One metric, measured and simulated; the error is simulated over measured, less one, with its own interval."""

    metric: str
    unit: str = "s"
    measured: float
    simulated: Estimate
    error: float | None = None
    error_interval: Estimate | None = None

    @property
    def name(self) -> str:
        return self.metric.replace("_", " ").replace("ttft", "TTFT").replace("tpot", "time per token")


class Validation(_Facts):
    """A load that was served, and the same load simulated."""

    source: str
    name: str
    metrics: tuple[Compared, ...] = Field(min_length=1)
    measured: tuple[Amount, ...] = ()
    simulated: tuple[Amount, ...] = ()
    notes: tuple[str, ...] = ()


class Measurement(_Facts):
    """Step times of the models of one machine."""

    source: str
    profiles: tuple[LatencyProfile, ...] = Field(min_length=1)


class Undominated(_Facts):
    """A fleet that no other beats on accuracy, cost and latency together."""

    line: str
    fleet: str
    accuracy: float = Field(ge=0, le=1)
    usd_per_query: Amount
    latency_p95: Amount


class Swing(_Facts):
    """The cost where an input is 20 % smaller, and larger; None where no count of the devices is enough."""

    input: str
    usd_per_hour_less: Amount | None = None
    usd_per_hour_more: Amount | None = None


class OneAway(_Facts):
    """What the fleet was simulated to reach without one replica; `fails` says why that is not enough."""

    metrics: Mapping[str, Estimate] = Field(default_factory=dict)
    fails: str | None = None


class Bought(_Facts):
    """The fleet to buy, and what it was simulated to reach."""

    fleet: str
    usd_per_hour: Amount
    usd_per_month: Amount
    metrics: Mapping[str, Estimate] = Field(default_factory=dict)
    missed: tuple[str, ...] = ()
    overloaded: str | None = None
    n_minus_1: Mapping[str, OneAway] = Field(default_factory=dict)


class Relaxed(_Facts):
    says: str


class Planned(_Facts):
    """The cheapest fleet for a scenario, what stands against cheaper ones, and what moves its cost."""

    source: str
    name: str
    plan: Bought
    feasible: bool = True
    incomplete: str | None = None
    scenario: Mapping[str, Any] = Field(default_factory=dict)
    headroom: Amount | None = None
    next_cheaper: str | None = None
    relax: tuple[Relaxed, ...] = ()
    one_down: tuple[str, ...] = ()
    break_even: tuple[str, ...] = ()
    sensitivity: tuple[Swing, ...] = ()
    pareto: tuple[Undominated, ...] = ()


Document: TypeAlias = Evaluation | Simulation | Validation | Measurement | Planned
