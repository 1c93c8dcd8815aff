"""The latency model that a scenario asks for, for one model on one placement."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from octavo.profiles.errors import ConfigError
from octavo.profiles.find import find
from octavo.profiles.fleet import Placement
from octavo.profiles.latency import LatencyProfile, read_latency
from octavo.profiles.read import read_data
from octavo.profiles.scenario import Scenario
from octavo.simulator.latency.fit import Coefficients, Fit
from octavo.simulator.latency.model import LatencyModel
from octavo.simulator.latency.roofline import Roofline
from octavo.simulator.latency.table import Table


def choose(scenario: Scenario, placement: Placement, name: str, lora_rank: int = 0, adapters: int = 0) -> LatencyModel:
    """`roofline`, `table:FILE` or `fit:NAME`; `auto` is the roofline with the hardware's measured efficiencies."""
    kind, _, argument = scenario.latency.partition(":")
    model, engine = scenario.model_of(name), scenario.engine
    assert model is not None
    shape = (scenario.hardware_of(placement), model, scenario.precision_of(name), engine.kv_precision)
    sharded = (placement.tensor_parallel, placement.pipeline_parallel, engine.step_overhead)
    if kind == "table":
        return Table(_read(argument), engine.step_overhead)
    if kind in ("auto", "roofline"):
        return Roofline(*shape, *sharded, lora_rank, adapters)
    if kind == "fit":
        coefficients, error = fitted(argument)
        return Fit(argument, coefficients, *shape, *sharded, error, lora_rank, adapters)
    raise ConfigError(
        f"{scenario.name}: latency: {scenario.latency} needs operator tables that are not here; "
        "auto, roofline, fit:servers or table:FILE"
    )


@lru_cache(maxsize=32)
def _read(file: str) -> LatencyProfile:
    return read_latency(Path(file))


@lru_cache(maxsize=32)
def fitted(name: str) -> tuple[Coefficients, float]:
    """Coefficients by name or path, and their relative error on what was not in the fit."""
    data = read_data(find("latency", name), name)
    try:
        return Coefficients(**data["coefficients"]), float(data["error"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"latency: fit:{name}: it needs coefficients and an error ({error})") from None
