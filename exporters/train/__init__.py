"""Trains the embedded default: a base, eight experts, a value model and two baselines.

`task` (the puzzles and their exact verifier) needs the standard library only; nothing here loads torch before a
worker process starts to train.
"""

from __future__ import annotations

from octavo.exporters.train.progress import Progress, Trained
from octavo.exporters.train.recipe import DEFAULT, TINY, Recipe
from octavo.exporters.train.workshop import train_ensemble

__all__ = ["DEFAULT", "TINY", "Progress", "Recipe", "Trained", "train_ensemble"]
