"""What an export tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from octavo.profiles.manifest import Parity

Stage = Literal["plan", "graph", "weights", "scales", "reference", "parity", "build", "files", "done"]


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """One step begun (or, with `parity`, a model measured): `done` of `total` steps are behind us."""

    stage: Stage
    model: str | None
    done: int
    total: int
    note: str = ""
    parity: Parity | None = None


def silent(progress: ExportProgress) -> None:
    """Tell nobody."""
