"""Which models live together, with how many copies and what devices: what a plan says, or an even split."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from octavo.profiles.errors import ConfigError
from octavo.profiles.load import load_scenario
from octavo.profiles.manifest import Manifest, verify_bundle
from octavo.profiles.scenario import Scenario


class BranchPlace(BaseModel):
    """A branch: its models, its copies (as many as load asks for, up to `max_replicas`), and what each copy takes."""

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


class FrontPlace(BaseModel):
    """The ingress: its copies, each with its own count of what is open, and what each takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(default=1, ge=1)
    cpus: float = Field(default=0.0, ge=0)
    resources: dict[str, float] = {}


def models_of(manifest: Manifest) -> list[str]:
    """The bundle's models: its experts, and the value model where it is one of its own."""
    value = manifest.value
    return [*(expert.name for expert in manifest.experts), *([value.name] if value and value.weights else [])]


def branches_for(bundle: Path, plan: Path | None, branches: int | None) -> tuple[BranchPlace, ...]:
    """As a plan's scenario file says, or dealt out over so many branches; one without either. Raises ConfigError."""
    if plan is not None and branches is not None:
        raise ConfigError("serve: give either --plan or --branches")
    manifest = verify_bundle(bundle, hashes=False)
    if plan is None:
        return tuple(even(manifest, branches or 1))
    return tuple(planned(load_scenario(str(plan)), manifest))


def even(manifest: Manifest, branches: int, cpus: float = 1.0) -> list[BranchPlace]:
    """The models dealt out in their order over so many branches, the value model in the last."""
    models = models_of(manifest)
    if not 1 <= branches <= len(models):
        raise ConfigError(f"branches: {manifest.name} has {len(models)} models, for 1 to {len(models)}; got {branches}")
    cuts = [round(index * len(models) / branches) for index in range(branches + 1)]
    return [
        BranchPlace(name=f"branch-{index}", models=tuple(models[start:stop]), cpus=cpus)
        for index, (start, stop) in enumerate(pairwise(cuts))
    ]


def planned(scenario: Scenario, manifest: Manifest) -> list[BranchPlace]:
    """The placements of a plan's scenario, as branches. Its experts are the bundle's in their order.

    Raises ConfigError where the two are not the same ensemble, or a model has several placements.
    """
    names = _names(scenario, manifest)
    places, homes = [], dict.fromkeys(names.values(), 0)
    for place in scenario.fleet.placement:
        members = [names[name] for name in scenario.names_of(place) if name in names]
        alone = place.mode == "dedicated"
        gpu = scenario.hardware_of(place).kind == "gpu"
        scale = scenario.fleet.operations.autoscale
        for group in [[member] for member in members] if alone else [members] if members else []:
            places.append(
                BranchPlace(
                    name=group[0] if alone else f"{place.tier}-{place.mode}",
                    models=tuple(group),
                    replicas=place.replicas,
                    max_replicas=max(scale.max, place.replicas) if scale else None,
                    gpus=place.devices if gpu else 0,
                    cpus=1.0 if gpu else float(place.devices),
                )
            )
            for member in group:
                homes[member] += 1
    _check_homes(scenario, homes)
    return _distinct(places)


def _names(scenario: Scenario, manifest: Manifest) -> dict[str, str]:
    """The plan's names for the bundle's models."""
    theirs = [expert.name for expert in scenario.ensemble.experts]
    ours = [expert.name for expert in manifest.experts]
    if len(theirs) != len(ours):
        raise ConfigError(f"{scenario.name}: plans {len(theirs)} experts, and {manifest.name} has {len(ours)}")
    names = dict(zip(theirs, ours, strict=True))
    if manifest.value and manifest.value.weights:
        names["value"] = manifest.value.name
    return names


def _check_homes(scenario: Scenario, homes: dict[str, int]) -> None:
    for model, count in homes.items():
        if count != 1:
            raise ConfigError(f"{scenario.name}: fleet.placement: {model} must live in one place, lives in {count}")


def _distinct(places: Sequence[BranchPlace]) -> list[BranchPlace]:
    """Names made different by a number where two are equal."""
    seen: dict[str, int] = {}
    named = []
    for place in places:
        seen[place.name] = number = seen.get(place.name, 0) + 1
        named.append(place if number == 1 else place.model_copy(update={"name": f"{place.name}-{number}"}))
    return named
