"""Branches: which models of an ensemble live together on one machine. What a plan says and a cluster does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from octavo.profiles.errors import ConfigError
from octavo.profiles.fleet import Placement
from octavo.profiles.scenario import Scenario

EXPERT = "expert:"  # names an expert by its place: expert:0 is the ensemble's first
VALUE = "value:"  # names the value model, whatever a bundle calls it


class BranchPlace(BaseModel):
    """A branch: its models, its copies (as many as load asks for, up to `max_replicas`), and what each copy takes.

    Models are named, or `expert:0`, `expert:1`, ... by their place in the ensemble, and `value:` for the value model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    models: tuple[str, ...] = Field(min_length=1)
    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    cpus: float = Field(default=1.0, ge=0)
    gpus: int = Field(default=0, ge=0)
    resources: dict[str, float] = Field(default={}, description="of the cluster's own kinds, to pin it to some nodes")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must be at least replicas ({self.replicas})")
        return self


def branches_of(scenario: Scenario) -> list[tuple[BranchPlace, Placement]]:
    """A scenario's fleet as branches: one per model where it has devices of its own, one per group otherwise.

    Raises ConfigError where a model lives in several places, which a cluster can't do.
    """
    order = {expert.name: f"{EXPERT}{place}" for place, expert in enumerate(scenario.ensemble.experts)}
    found: list[tuple[BranchPlace, Placement]] = []
    for place in scenario.fleet.placement:
        for group in _groups(scenario, place):
            models = tuple(order.get(name, VALUE) for name in group)
            name = group[0] if len(group) == 1 else f"{place.tier}-{place.mode}"
            found.append((_branch(scenario, place, name, models), place))
    _check_homes(scenario, [branch for branch, _ in found])
    return list(zip(_distinct(branch for branch, _ in found), (place for _, place in found), strict=True))


def _groups(scenario: Scenario, place: Placement) -> Iterator[Sequence[str]]:
    names = scenario.names_of(place)
    if place.mode == "dedicated":
        yield from ([name] for name in names)
    elif names:
        yield names


def _branch(scenario: Scenario, place: Placement, name: str, models: tuple[str, ...]) -> BranchPlace:
    gpu, scale = scenario.hardware_of(place).kind == "gpu", scenario.fleet.operations.autoscale
    return BranchPlace(
        name=name,
        models=models,
        replicas=place.replicas,
        max_replicas=max(scale.max, place.replicas) if scale else None,
        cpus=1.0 if gpu else float(place.devices),
        gpus=place.devices if gpu else 0,
    )


def _check_homes(scenario: Scenario, branches: Sequence[BranchPlace]) -> None:
    homes = [model for branch in branches for model in branch.models]
    for model in homes:
        if homes.count(model) > 1:
            raise ConfigError(f"{scenario.name}: fleet.placement: {model} lives in {homes.count(model)} places")


def _distinct(branches: Iterable[BranchPlace]) -> Iterator[BranchPlace]:
    """Names made different by a number where two are equal."""
    seen: dict[str, int] = {}
    for branch in branches:
        seen[branch.name] = number = seen.get(branch.name, 0) + 1
        yield branch if number == 1 else branch.model_copy(update={"name": f"{branch.name}-{number}"})
