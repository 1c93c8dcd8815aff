"""What tensor-parallel devices exchange, from collectives that were measured between them.

LLMServingSim writes them beside its layer tables (hardware.yaml). A step sums a token's activations over the devices
twice a layer and once after the embedding (Shoeybi et al., Megatron-LM, 2019), and gathers the logits of the rows that
are sampled, each device holding its share of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.model import Model
from octavo.profiles.read import read_data
from octavo.simulator.latency.table import Curve

Exchange = Callable[[int, int], float]
"""Seconds of a step over so many tokens, of which so many rows are sampled."""

MICROSECOND = 1e-6
ACTIVATION = 2
"""Bytes of a value that is exchanged, a logit too."""


def read_exchange(folder: Path, model: Model, shards: int) -> Exchange | None:
    """From the hardware.yaml of the tables' folder or one above; None where none of so many devices was measured."""
    found = next(
        (at / "hardware.yaml" for at in folder.absolute().parents[:6] if (at / "hardware.yaml").is_file()), None
    )
    if found is None:
        return None
    link = (read_data(found, str(found)).get("measured") or {}).get("interconnect") or {}
    if link.get("npus") != shards:
        return None
    try:
        reduce, gather = (_curve(link, kind) for kind in ("all_reduce", "all_gather"))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{found}: measured.interconnect: a sample is bytes and us ({error!r})") from None
    return exchange(model, shards, reduce, gather) if reduce else None


def exchange(model: Model, shards: int, reduce: Curve, gather: Curve | None = None) -> Exchange:
    """Curves are over the bytes that every device holds."""
    width, share = ACTIVATION * model.hidden, ACTIVATION * model.vocab / shards
    reduces = 2 * model.layers + 1

    def seconds(tokens: int, sampled: int) -> float:
        found = reduces * reduce.line(tokens * width).seconds
        return found + (gather.line(sampled * share).seconds if gather and sampled else 0.0)

    return seconds


def _curve(link: Mapping[str, Any], kind: str) -> Curve | None:
    samples = [s for s in link.get("samples") or () if s.get("collective", "all_reduce") == kind]
    points = [(float(s["bytes"]), float(s["us"]) * MICROSECOND) for s in samples]
    return Curve.through(points) if points else None
