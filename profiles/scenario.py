"""The scenario: everything that a simulation or a plan starts from, in one frozen object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from re import fullmatch
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from octavo.profiles.ensemble import Ensemble, Expert, ValueModel
from octavo.profiles.fact import Entry
from octavo.profiles.fleet import Fleet, Placement
from octavo.profiles.hardware import Hardware
from octavo.profiles.link import Link
from octavo.profiles.model import Model
from octavo.profiles.price import Price
from octavo.profiles.quantity import Fraction, Joules, PerSecond, Precision, Seconds, Share, Usd
from octavo.profiles.workload import Workload


class Engine(Entry):
    """Settings of the serving engine, the same on every device; the names are vLLM's where it has them."""

    precision: Precision = "bf16"
    kv_precision: Precision = "bf16"
    block_size: int = Field(default=16, gt=0, description="tokens of one KV block")
    kv_blocks: int | None = Field(default=None, gt=0, description="of a replica; None: from what memory is left")
    max_num_seqs: int = Field(default=256, gt=0)
    max_num_batched_tokens: int = Field(default=8192, gt=0)
    memory_utilization: Share = 0.9
    prefix_caching: bool = True
    chunked_prefill: bool = True
    schedule: Literal["auto", "mixed", "prefill_first"] = Field(
        default="auto",
        description="mixed: prompts beside decodes, as vLLM V1; prefill_first: all prompts before decodes, as SGLang; "
        "auto: as the framework that latency names",
    )
    step_overhead: Seconds = Field(default=0.0, description="of the host per step, above the hardware's")
    request_overhead: Seconds = Field(default=0.0, description="of the host per inference")


class Stated(Entry):
    """Outcomes drawn from stated probabilities; an expert's own `accuracy` goes before `p_correct`.

    `difficulty` is the correlation between two candidates of one query being right (beta-binomial): 0 when they are
    right independently, 1 when all or none of a query's candidates are.
    """

    kind: Literal["stated"] = "stated"
    p_correct: Fraction = 0.5
    difficulty: Fraction = 0.5
    value_auc: float = Field(default=0.8, ge=0.5, le=1, description="P(score of a right one > score of a wrong one)")


class Records(Entry):
    """Outcomes drawn from what `octavo eval` recorded, query by query."""

    kind: Literal["records"]
    file: str


class Unknown(Entry):
    """Nothing is known of how often answers are right: what they cost is simulated, and no accuracy is given.

    All candidates score alike, so a policy that stops when it is sure has no sense here.
    """

    kind: Literal["unknown"]


Outcomes = Annotated[Stated | Records | Unknown, Field(discriminator="kind")]


class Service(Entry):
    """How queries must be served (SLO). None: anything goes."""

    ttft_p95: Seconds | None = None
    tpot_p95: Seconds | None = None
    latency_p50: Seconds | None = None
    latency_p95: Seconds | None = None
    latency_p99: Seconds | None = None
    goodput: PerSecond | None = Field(default=None, description="queries per second that meet the latency targets")
    availability: Fraction | None = Field(default=None, description="share of the queries that are answered")
    accuracy: Fraction | None = None

    @property
    def wanted(self) -> dict[str, float]:
        """The metrics that have a target."""
        return {name: value for name, value in self if isinstance(value, float | int)}


class Targets(Service):
    """What the fleet must reach: how it serves, what that costs, and how it serves while any one device is away."""

    usd_per_query: Usd | None = None
    usd_per_million_tokens: Usd | None = Field(default=None, description="of answers")
    joules_per_query: Joules | None = None
    n_minus_1: Service | None = Field(
        default=None,
        description="what still holds with any one device away, the worst: it must keep up, answer, and reach these",
    )


class Baseline(Entry):
    """The scenario with some of it changed, to compare with. A change with another name or kind replaces it."""

    name: str = Field(min_length=1)
    description: str = ""
    change: dict[str, Any] = Field(min_length=1)


def _seeds(seeds: object) -> object:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        return tuple(range(seeds))
    return tuple(seeds) if isinstance(seeds, list) else seeds


LATENCY = r"^(auto|roofline|silicon(:(vllm|trtllm|sglang))?|table:.+|layers:.+|fit:.+)$"


def _latency(text: str) -> str:
    if not fullmatch(LATENCY, text):
        raise ValueError(
            "must be auto, roofline, table:FILE, layers:FOLDER, fit:NAME, silicon or silicon:FRAMEWORK "
            "(vllm, trtllm, sglang)"
        )
    return text


class Scenario(Entry):
    """A resolved scenario: every hardware, model, link and price that it names is in the table of its kind."""

    name: str
    description: str = ""
    seeds: Annotated[
        tuple[int, ...], Field(min_length=1), BeforeValidator(_seeds, json_schema_input_type=int | tuple[int, ...])
    ] = (0, 1, 2)
    latency: Annotated[str, AfterValidator(_latency)] = Field(default="auto", json_schema_extra={"pattern": LATENCY})
    ensemble: Ensemble
    fleet: Fleet
    engine: Engine = Engine()
    workload: Workload
    outcomes: Outcomes = Stated()
    targets: Targets = Targets()
    baselines: tuple[Baseline, ...] = ()
    hardware: dict[str, Hardware] = Field(default_factory=dict)
    models: dict[str, Model] = Field(default_factory=dict)
    links: dict[str, Link] = Field(default_factory=dict)
    prices: dict[str, Price] = Field(default_factory=dict)

    @classmethod
    def load(cls, name: str | Path, overrides: Iterable[str] = ()) -> Scenario:
        """A built-in scenario or a YAML file, changed as by `--set`. Raises ConfigError with all that is wrong."""
        from octavo.profiles.load import load_scenario  # which builds scenarios of this class

        return load_scenario(name, overrides)

    def expert(self, name: str) -> Expert:
        """The expert of that name. Raises KeyError."""
        return {expert.name: expert for expert in self.ensemble.experts}[name]

    def model_of(self, name: str) -> Model | None:
        """The model of an expert, or of `value`; None when no value model runs."""
        if name != "value":
            return self.models[self.expert(name).model]
        value = self.ensemble.value
        return self.models[value.model] if isinstance(value, ValueModel) else None

    def precision_of(self, name: str) -> Precision:
        """Of an expert's weights, or of the value model's: its own, or else the engine's."""
        value = self.ensemble.value
        own = getattr(value, "precision", None) if name == "value" else self.expert(name).precision
        return own or self.engine.precision

    def names_of(self, placement: Placement) -> tuple[str, ...]:
        """The experts that a placement holds, and `value` where it holds the value model."""
        everyone = [expert.name for expert in self.ensemble.experts]
        named = [name for entry in placement.of for name in (everyone if entry == "experts" else [entry])]
        judged = isinstance(self.ensemble.value, ValueModel)
        return tuple(dict.fromkeys(name for name in named if judged or name != "value"))

    def placements_of(self, name: str) -> tuple[Placement, ...]:
        """Where an expert, or `value`, lives."""
        return tuple(place for place in self.fleet.placement if name in self.names_of(place))

    def devices_of(self, placement: Placement) -> int:
        """Devices that a placement takes, all replicas together; none when its value model doesn't run."""
        names = self.names_of(placement)
        copies = len(names) if placement.mode == "dedicated" else min(1, len(names))
        return placement.devices * placement.replicas * copies

    def devices_used(self) -> Counter[tuple[str, str]]:
        """Devices that the placements take, per (tier, hardware)."""
        used: Counter[tuple[str, str]] = Counter()
        for place in self.fleet.placement:
            used[place.tier, place.hardware] += self.devices_of(place)
        return used

    def devices(self) -> dict[tuple[str, str], int]:
        """Devices that are there (and paid for), per (tier, hardware): as the tiers say, or else those used."""
        stated = {(name, hw): n for name, tier in self.fleet.tiers.items() for hw, n in tier.devices.items()}
        return dict(self.devices_used()) | stated

    @property
    def prefill_first(self) -> bool:
        """Whether prompts go before decodes, as said or as the framework does whose step times are asked for."""
        said = self.engine.schedule
        return self.latency.endswith(":sglang") if said == "auto" else said == "prefill_first"

    def without(self, name: str) -> Scenario:
        """One replica of a model (and of all that stand with it) is away, and the targets are those for that."""
        moving = self.fleet.operations.model_copy(update={"down": (*self.fleet.operations.down, name)})
        fleet = self.fleet.model_copy(update={"operations": moving})
        wanted = self.targets.n_minus_1.wanted if self.targets.n_minus_1 else {}
        return self.model_copy(update={"fleet": fleet, "targets": Targets().model_copy(update=wanted), "baselines": ()})

    def hardware_of(self, placement: Placement) -> Hardware:
        return self.hardware[placement.hardware]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if wrong := [*self._homeless(), *self._short_of_devices()]:
            raise ValueError("\n".join(wrong))
        return self

    def _homeless(self) -> Iterator[str]:
        known = {*(expert.name for expert in self.ensemble.experts), "value"}
        homed = {name for place in self.fleet.placement for name in self.names_of(place)}
        needed = known if isinstance(self.ensemble.value, ValueModel) else known - {"value"}
        homeless = sorted(needed - homed)
        if homeless and homed <= known:  # else the name that is wrong is said, and is why
            yield f"fleet.placement: {', '.join(homeless)} lives nowhere; add a placement of it"

    def _short_of_devices(self) -> Iterator[str]:
        for (name, hardware), used in self.devices_used().items():
            tier = self.fleet.tiers.get(name)
            have = tier.devices.get(hardware, used) if tier else used
            if used > have:
                yield f"fleet.tiers.{name}.devices.{hardware}: placements take {used}, there are {have}"
