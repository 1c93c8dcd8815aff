"""Measured against simulated: the load that the runtime served, simulated from the step times of the same machine."""

from __future__ import annotations

from pathlib import Path


def simulate_replay(folder: Path, out: Path | None, *, as_json: bool) -> None:
    """Simulate what `octavo measure` recorded in a folder, and print both with the error between them."""
    raise NotImplementedError(folder, out, as_json)
