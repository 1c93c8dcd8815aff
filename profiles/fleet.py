"""Devices in tiers, the links between them, which model lives where, and what goes wrong."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from octavo.profiles.fact import Entry
from octavo.profiles.hardware import Basis
from octavo.profiles.quantity import Seconds, Share

Mode = Literal["dedicated", "co-located", "lora", "swapped"]
Routing = Literal["round_robin", "least_work", "shortest_queue", "prefix_affine"]


class Tier(Entry):
    """A place with devices: how many of which, how clients reach it, what they cost there."""

    devices: dict[str, Annotated[int, Field(gt=0)]] = Field(
        default={}, description="hardware: count; left out: as many as the placements take"
    )
    client_link: str | None = Field(default=None, description="None: the client is in the same place")
    basis: Basis = "on_demand"
    price: str = Field(default="us-average", description="tariff, carbon and egress")
    pue: float | None = Field(default=None, ge=1, description="facility energy over device energy; None: the tariff's")


class TierLink(Entry):
    """Two tiers and the link between them."""

    between: tuple[str, str]
    link: str


def _listed(of: object) -> object:
    return (of,) if isinstance(of, str) else tuple(of) if isinstance(of, list) else of


class Placement(Entry):
    """Where some models live. `of` names experts, or says `experts` for all of them, or `value`.

    dedicated: every one of them has replicas of its own; the other modes share each replica's devices: co-located (all
    resident), lora (one base, an adapter each), swapped (one resident at a time).
    """

    of: Annotated[
        tuple[str, ...], Field(min_length=1), BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])
    ]
    tier: str
    hardware: str
    tensor_parallel: int = Field(default=1, gt=0)
    pipeline_parallel: int = Field(default=1, gt=0)
    replicas: int = Field(default=1, gt=0, description="of each model when dedicated, of the group otherwise")
    mode: Mode = "dedicated"
    routing: Routing = "least_work"

    @property
    def devices(self) -> int:
        """Of one replica."""
        return self.tensor_parallel * self.pipeline_parallel


class Failures(Entry):
    """Each device fails after an exponential time of mean `mtbf` of running, and is back after one of mean `mttr`."""

    mtbf: Seconds = Field(gt=0)
    mttr: Seconds = Field(gt=0)


class Autoscale(Entry):
    """Replicas of each placement follow its utilisation; a new one serves after `cold_start`."""

    min: int = Field(default=1, gt=0)
    max: int = Field(gt=0)
    target: Share = Field(default=0.7, description="utilisation to aim at")
    interval: Seconds = Field(default=30.0, gt=0)
    cold_start: Seconds | None = Field(default=None, description="None: boot 60 s plus loading the weights")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must be at most max ({self.max})")
        return self


class Maintenance(Entry):
    """Replicas in turn take no new work for `drain`, then are away for `lasts`; every replica once per `every`."""

    every: Seconds = Field(gt=0)
    drain: Seconds = 0.0
    lasts: Seconds = Field(gt=0)


class Outage(Entry):
    """Something that happens at a known time: devices of a tier away, or the whole tier (an edge box offline)."""

    tier: str
    at: Seconds
    lasts: Seconds = Field(gt=0)
    devices: int | None = Field(default=None, gt=0)


class Operations(Entry):
    """What goes wrong and what is done about it. What is left out does not happen."""

    failures: Failures | None = None
    spot_preemption: Failures | None = None
    autoscale: Autoscale | None = None
    maintenance: Maintenance | None = None
    outages: tuple[Outage, ...] = ()
    down: tuple[str, ...] = Field(
        default=(),
        description="of each of these models (expert, or value) one replica is away throughout, and paid for; a model "
        "without any other is lost to every query at once",
    )
    on_failure: Literal["retry", "fail"] = "retry"
    retries: int = Field(default=2, ge=0)


class Fleet(Entry):
    """Tiers by name, links between tiers, placements, operations."""

    tiers: dict[str, Tier] = Field(min_length=1)
    links: tuple[TierLink, ...] = ()
    placement: tuple[Placement, ...] = Field(min_length=1)
    operations: Operations = Operations()

    def link_between(self, one: str, other: str) -> str | None:
        """Name of the link between two tiers, either way round; None where they are not linked."""
        return next((link.link for link in self.links if {one, other} == set(link.between)), None)
