"""The branches of a bundle: as a plan has them, or its models dealt out evenly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from octavo.profiles.branch import EXPERT, VALUE, BranchPlace, branches_of
from octavo.profiles.errors import ConfigError
from octavo.profiles.load import load_scenario
from octavo.profiles.manifest import Manifest, verify_bundle


class FrontPlace(BaseModel):
    """The ingress: its copies, each with its own count of what is open, and what each takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(default=1, ge=1)
    cpus: float = Field(default=0.0, ge=0)
    resources: dict[str, float] = {}


def branches_for(bundle: Path, plan: Path | None, branches: int | None) -> tuple[BranchPlace, ...]:
    """As a plan's scenario file says, or dealt out over so many branches; one without either. Raises ConfigError."""
    if plan is not None and branches is not None:
        raise ConfigError("serve: give either --plan or --branches")
    manifest = verify_bundle(bundle, hashes=False)
    if plan is None:
        return tuple(even(manifest, branches or 1))
    return tuple(named([branch for branch, _ in branches_of(load_scenario(str(plan)))], manifest))


def even(manifest: Manifest, branches: int) -> list[BranchPlace]:
    """The models dealt out in their order over so many branches, the value model in the last."""
    models = models_of(manifest)
    if not 1 <= branches <= len(models):
        raise ConfigError(f"branches: {manifest.name} has {len(models)} models, for 1 to {len(models)}; got {branches}")
    cuts = [round(index * len(models) / branches) for index in range(branches + 1)]
    return [
        BranchPlace(name=f"branch-{index}", models=tuple(models[start:stop]))
        for index, (start, stop) in enumerate(pairwise(cuts))
    ]


def named(branches: Sequence[BranchPlace], manifest: Manifest) -> list[BranchPlace]:
    """The branches with the bundle's names for their models.

    A branch that only held a value model which this bundle doesn't have falls away. Raises ConfigError where the
    ensembles differ, or a model lives nowhere or twice.
    """
    found = []
    for branch in branches:
        models = [name for model in branch.models if (name := _name(model, manifest)) is not None]
        if models:
            found.append(branch.model_copy(update={"models": tuple(models)}))
    homes = [model for branch in found for model in branch.models]
    for model in models_of(manifest):
        if homes.count(model) != 1:
            raise ConfigError(f"branches: {model} must be on one of them, is on {homes.count(model)}")
    return found


def models_of(manifest: Manifest) -> list[str]:
    """The bundle's models: its experts, and the value model where it is one of its own."""
    value = manifest.value
    return [*(expert.name for expert in manifest.experts), *([value.name] if value and value.weights else [])]


def _name(model: str, manifest: Manifest) -> str | None:
    if model == VALUE:
        return manifest.value.name if manifest.value and manifest.value.weights else None
    names = [expert.name for expert in manifest.experts]
    if model.startswith(EXPERT):
        place = model.removeprefix(EXPERT)
        if not (place.isdecimal() and int(place) < len(names)):
            raise ConfigError(f"branches: {model}: {manifest.name} has {len(names)} experts, the first is expert:0")
        return names[int(place)]
    if model not in models_of(manifest):
        raise ConfigError(f"branches: {manifest.name} has no {model!r}; there are {', '.join(models_of(manifest))}")
    return model
