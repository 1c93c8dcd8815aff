"""One random stream per purpose, so that changing one thing does not shift the draws of another."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Purpose = Literal[
    "arrivals",
    "prompts",
    "answers",
    "think",
    "difficulty",
    "right",
    "scores",
    "logprobs",
    "labels",
    "network",
    "failures",
    "spot",
    "maintenance",
    "pace",
]
"""In the order in which streams are spawned; new purposes go to the end."""


class Streams:
    """The random streams of one seed."""

    def __init__(self, seed: int) -> None:
        purposes = get_args(Purpose)
        spawned = np.random.SeedSequence(seed).spawn(len(purposes))
        self._seeds: dict[str, np.random.SeedSequence] = dict(zip(purposes, spawned, strict=True))

    def seed_of(self, purpose: Purpose) -> np.random.SeedSequence:
        return self._seeds[purpose]

    def of(self, purpose: Purpose) -> np.random.Generator:
        """A generator at the beginning of the purpose's stream."""
        return np.random.default_rng(self._seeds[purpose])
