"""Candidates with verdicts, as `octavo train-value` collects them: what a value model of any ensemble learns from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from octavo.exporters.checkpoint import Array
from octavo.profiles.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One candidate: the prompt's tokens and its own, the end token with them (int64), and whether it is right."""

    query: str
    expert: str
    prompt: Array
    tokens: Array
    right: bool

    def __len__(self) -> int:
        return len(self.prompt) + len(self.tokens)

    @property
    def row(self) -> Array:
        return np.concatenate([self.prompt, self.tokens])


@dataclass(frozen=True, slots=True)
class Parts:
    """Candidates of disjoint queries: to learn from, to calibrate with, and to say how good the result is."""

    train: list[Judged]
    calibration: list[Judged]
    test: list[Judged]


def read_judged(path: Path) -> list[Judged]:
    """Every candidate of a file that `octavo.runtime.collect` wrote."""
    _, *lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for row in map(json.loads, lines):
        prompt = np.array(row["prompt"], np.int64)
        found += [
            Judged(row["query"], each["expert"], prompt, np.array(each["tokens"], np.int64), each["right"])
            for each in row["candidates"]
        ]
    return found


def split(candidates: Sequence[Judged], held_out: float, seed: int) -> Parts:
    """By query, at random: a share `held_out` is kept from learning, and halved into calibration and test.

    Raises ConfigError where a part would hold only right candidates, or only wrong ones.
    """
    queries = sorted({each.query for each in candidates})
    Random(seed).shuffle(queries)
    aside = round(held_out * len(queries))
    place = {query: 1 + index % 2 if index < aside else 0 for index, query in enumerate(queries)}
    groups: tuple[list[Judged], ...] = ([], [], [])
    for each in candidates:
        groups[place[each.query]].append(each)
    for name, group in zip(("training", "calibration", "test"), groups, strict=True):
        right = sum(each.right for each in group)
        if not 0 < right < len(group):
            counted = f"{right} of the {len(group)} {name} candidates are right"
            raise ConfigError(f"train-value: {counted}; both kinds are needed, so give other tasks, or more of them")
    return Parts(*groups)


def verdicts(candidates: Sequence[Judged]) -> Array:
    """1 for right, 0 for wrong, [candidates] float64."""
    return np.array([each.right for each in candidates], np.float64)


@dataclass(frozen=True, slots=True)
class Rows:
    """Prompts and answers side by side, padded on the right, int64 [rows, longest].

    `written` marks the answers' tokens; `right` are the verdicts, [rows].
    """

    ids: Tensor
    written: Tensor
    right: Tensor

    @property
    def last(self) -> Tensor:
        """The place of each row's last token, [rows, 1]."""
        places = torch.arange(self.ids.shape[1])
        return (self.written * places).argmax(1, keepdim=True)


def batch(candidates: Sequence[Judged], pad: int) -> Rows:
    shape = (len(candidates), max(map(len, candidates)))
    ids, written = torch.full(shape, pad), torch.zeros(shape, dtype=torch.bool)
    for row, each in enumerate(candidates):
        ids[row, : len(each)] = torch.from_numpy(each.row)
        written[row, len(each.prompt) : len(each)] = True
    return Rows(ids, written, torch.tensor([each.right for each in candidates]))
