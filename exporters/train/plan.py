"""Which stages there are, what each needs, and the key by which a finished one is known again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from octavo.exporters.train.recipe import EXPERTS, Recipe

FORMAT = 1  # raise it when the code, with the same recipe, would give other weights
EXPERT_NAMES = tuple(f"expert-{number}" for number in range(EXPERTS))
BASELINES = ("generalist", "soup")


@dataclass(frozen=True, slots=True)
class Stage:
    """One checkpoint to be made from others."""

    name: str
    after: tuple[str, ...]
    key: str


def plan(recipe: Recipe) -> list[Stage]:
    """All stages, each after those that it needs; the longest way (experts, soup, value) comes first."""
    common = {"format": FORMAT, "seed": recipe.seed, "digits": recipe.digits, "batch": recipe.batch}
    sampling = {"samples": recipe.samples, "temperature": recipe.temperature}
    expert = {"course": asdict(recipe.expert), "speciality": recipe.speciality}
    keys: dict[str, str] = {}

    def stage(name: str, after: tuple[str, ...], settings: dict[str, Any]) -> Stage:
        text = json.dumps([name, common, settings, [keys[needed] for needed in after]], sort_keys=True)
        keys[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return Stage(name, after, keys[name])

    return [
        stage("base", (), {"shape": asdict(recipe.shape), "course": asdict(recipe.base), **sampling}),
        *(stage(name, ("base",), expert) for name in EXPERT_NAMES),
        stage("soup", EXPERT_NAMES, {}),
        stage("value", ("soup", *EXPERT_NAMES), {"value": asdict(recipe.value), **sampling}),
        stage("generalist", ("base",), {"course": asdict(recipe.expert)}),
    ]
