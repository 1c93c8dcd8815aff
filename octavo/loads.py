"""Recorded loads, as `octavo measure --replay` serves them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from octavo.profiles.errors import ConfigError

if TYPE_CHECKING:
    from octavo.runtime.replay import Arrival


def read_load(path: Path, *, queries: int, rate: float | None) -> list[Arrival]:
    """The first queries of a recorded load, from zero on; with `rate`, as many a second on the mean as it says.

    Raises ConfigError naming the file and the record that cannot be read.
    """
    from octavo.profiles.workload import TraceFile
    from octavo.runtime.replay import Arrival
    from octavo.simulator.arrivals import read_recording

    trace = TraceFile(kind="trace", file=str(path), format=form_of(path))
    found = read_recording(trace, queries)
    last, speed = float(found.times[-1]), 1.0
    if rate is not None:
        if not last or not rate:
            raise ConfigError(f"rate: {rate:g} queries a second cannot be made of {path}, whose queries come at once")
        speed = rate * last / (len(found.times) - 1)
    return [
        Arrival(float(at) / speed, None, int(prompt), int(answer))
        for at, prompt, answer in zip(found.times, found.prompts, found.answers, strict=True)
    ]


def form_of(path: Path) -> Literal["mooncake", "azure", "burstgpt"]:
    """Whose form a file has, by its first line."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            first = lines.readline()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    return "azure" if first.startswith("TIMESTAMP,") else "burstgpt" if first.startswith("Timestamp,") else "mooncake"
