"""The latency model that a scenario asks for, for one model on one placement."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from octavo.profiles.errors import ConfigError
from octavo.profiles.fleet import Placement
from octavo.profiles.latency import LatencyProfile, read_latency
from octavo.profiles.scenario import Scenario
from octavo.simulator.latency.model import LatencyModel
from octavo.simulator.latency.roofline import Roofline
from octavo.simulator.latency.table import Table


def choose(scenario: Scenario, placement: Placement, name: str, lora_rank: int = 0, adapters: int = 0) -> LatencyModel:
    """`roofline`, `table:FILE` or `fit:FILE`; `auto` is the roofline with the hardware's measured efficiencies."""
    kind, _, argument = scenario.latency.partition(":")
    model = scenario.model_of(name)
    assert model is not None
    if kind == "table":
        return Table(_read(argument), scenario.engine.step_overhead)
    if kind in ("auto", "roofline"):
        return Roofline(
            scenario.hardware_of(placement),
            model,
            scenario.precision_of(name),
            scenario.engine.kv_precision,
            placement.tensor_parallel,
            placement.pipeline_parallel,
            scenario.engine.step_overhead,
            lora_rank,
            adapters,
        )
    raise ConfigError(f"{scenario.name}: latency: {scenario.latency!r} is not there; auto, roofline or table:FILE")


@lru_cache(maxsize=32)
def _read(file: str) -> LatencyProfile:
    return read_latency(Path(file))
