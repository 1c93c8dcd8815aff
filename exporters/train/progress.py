"""What training tells whoever watches it, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is: the share done in [0, 1], seconds since it began, and its loss once there is one."""

    stage: str
    fraction: float
    seconds: float = 0.0
    loss: float | None = None
    found: bool = False  # finished by an earlier run

    @property
    def message(self) -> str:
        if self.found:
            return "found"
        return "" if self.loss is None else f"loss {self.loss:.3f}"


@dataclass(frozen=True, slots=True)
class Trained:
    """Where everything is: one Hugging Face checkpoint folder per model, and the task files."""

    folder: Path
    experts: tuple[Path, ...]
    value: Path
    baselines: tuple[Path, ...]
    validation: Path
    heldout: Path


Watch = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Tell nobody."""
