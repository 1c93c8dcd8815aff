"""Problems drawn at random: endless for training, and the two fixed files that training never sees."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from octavo.exporters.train.recipe import Recipe
from octavo.exporters.train.task import PUZZLES, Split, prompt_for, solve, split_of

NAMES = tuple(PUZZLES)


@dataclass(frozen=True, slots=True)
class Problem:
    prompt: str
    reference: str


def draw(random: Random, digits: int, split: Split, weights: Sequence[float] = (1,) * len(NAMES)) -> Iterator[Problem]:
    """Endless problems of one split, with the puzzles in the given proportions."""
    while True:
        row = f"{random.randrange(10**digits):0{digits}}"
        if split_of(row) == split:
            (name,) = random.choices(NAMES, weights)
            prompt = prompt_for(name, row)
            yield Problem(prompt, solve(prompt) or "")


def leaning(expert: int, speciality: float) -> list[float]:
    """The proportions for an expert: its own puzzle over-weighted, the rest alike."""
    shared = (1 - speciality) / len(NAMES)
    return [shared + speciality * (place == expert) for place in range(len(NAMES))]


def fixed(recipe: Recipe, split: Split, count: int) -> list[Problem]:
    """The first `count` different problems of a split."""
    seen: dict[str, Problem] = {}
    for problem in draw(Random(f"{recipe.seed} {split}"), recipe.digits, split):
        seen.setdefault(problem.prompt, problem)
        if len(seen) == count:
            return list(seen.values())
    raise AssertionError("draw never ends")


def write_tasks(folder: Path, recipe: Recipe) -> None:
    """Write `validation.jsonl` and `heldout.jsonl`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[Split, int] = {"validation": recipe.validation, "heldout": recipe.heldout}
    for split, count in counts.items():
        lines = [
            json.dumps({"id": f"{split}-{number}", "prompt": problem.prompt, "reference": problem.reference})
            for number, problem in enumerate(fixed(recipe, split, count))
        ]
        partial = folder / f"{split}.jsonl.partial"
        partial.write_text("\n".join(lines) + "\n")
        partial.replace(folder / f"{split}.jsonl")


def take(problems: Iterator[Problem], count: int) -> list[Problem]:
    return list(islice(problems, count))
