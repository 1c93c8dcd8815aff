"""How a value model learns, whatever ensemble it is for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from octavo.exporters.train.recipe import Course
from octavo.profiles.errors import BundleError, ConfigError

RATE = 0.2  # over the hidden size: what Adam bears falls with the width (Yang et al. 2022, arXiv:2203.03466)


@dataclass(frozen=True, slots=True)
class Learning:
    """How a value model learns: steps of so many candidates, and the share of the queries that it never sees.

    `rate` is the highest; None: 0.2 over the hidden size. `layers` go on top of the trunk.
    """

    steps: int = 700
    rows: int = 128
    rate: float | None = None
    layers: int = 2
    held_out: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ConfigError(f"train-value: held_out must be between 0 and 1, got {self.held_out}")
        if min(self.steps, self.rows) < 1 or self.layers < 0:
            raise ConfigError("train-value: steps and rows must be at least 1, layers at least 0")
        if self.rate is not None and self.rate <= 0:
            raise ConfigError(f"train-value: rate must be positive, got {self.rate}")

    def course(self, trunk: Path) -> Course:
        """For a trunk of that width. Raises BundleError where the folder holds no decoder's checkpoint."""
        try:
            hidden = int(json.loads((trunk / "config.json").read_text())["hidden_size"])
        except (OSError, ValueError, KeyError, TypeError):
            raise BundleError(f"{trunk}: its config.json is not there or gives no hidden_size") from None
        return Course(self.steps, self.rate or RATE / hidden, warmup=max(1, min(20, self.steps // 10)))
