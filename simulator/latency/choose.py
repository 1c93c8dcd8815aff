"""The latency model that a scenario asks for, for one model on one placement."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from octavo.profiles.errors import ConfigError
from octavo.profiles.find import find, named
from octavo.profiles.fleet import Placement
from octavo.profiles.latency import LatencyProfile, read_latency
from octavo.profiles.read import read_data
from octavo.profiles.scenario import Scenario
from octavo.simulator.latency.exchange import Exchange, read_exchange
from octavo.simulator.latency.fit import Fitted
from octavo.simulator.latency.layers import read_layers
from octavo.simulator.latency.model import Band, LatencyModel
from octavo.simulator.latency.physics import BEND, Coefficients, Physics
from octavo.simulator.latency.roofline import roofline
from octavo.simulator.latency.silicon import Host, Silicon
from octavo.simulator.latency.table import Table
from octavo.simulator.pace import said


def choose(scenario: Scenario, placement: Placement, name: str, lora_rank: int = 0, adapters: int = 0) -> LatencyModel:
    """`roofline`, `table:FILE`, `layers:FOLDER`, `fit:NAME`, `silicon`; the last two are vLLM's, or `:trtllm`'s or so.

    `auto` is the roofline with the hardware's measured efficiencies. Raises ConfigError, and MachineError where the
    operator tables of `silicon` are not installed.
    """
    kind, _, argument = scenario.latency.partition(":")
    model, engine = scenario.model_of(name), scenario.engine
    assert model is not None
    shape = (scenario.hardware_of(placement), model, scenario.precision_of(name), engine.kv_precision)
    sharded = (placement.tensor_parallel, placement.pipeline_parallel, engine.step_overhead)
    if kind == "table":
        return Table(_read(argument), engine.step_overhead)
    if kind in ("auto", "roofline"):
        return roofline(*shape, *sharded, lora_rank, adapters)
    if kind == "layers":
        if lora_rank:
            raise ConfigError(f"latency: {scenario.latency}: LoRA layers were not measured; use fit or roofline")
        folder, shards = Path(argument), placement.tensor_parallel
        measured = read_exchange(folder, model, shards) if shards == placement.devices > 1 else None
        return read_layers(folder, model, shards, measured or _stated(roofline(*shape, *sharded)), engine.step_overhead)
    if kind == "fit":
        coefficients, band = fitted(argument)
        return Physics(f"fit {argument}", coefficients, band, BEND, *shape, *sharded, lora_rank, adapters)
    framework = argument or "vllm"
    host, band = host_of(framework)
    # TensorRT-LLM computes prompts and decoding rows in kernels of their own, SGLang in steps of their own.
    tile = scenario.hardware_of(placement).mixed_tile if framework == "vllm" else 1
    return Silicon(placement.hardware, framework, *shape[1:], *sharded, lora_rank, adapters, host, band, tile)


def _stated(physics: Physics) -> Exchange:
    """What devices exchange as their hardware profile says it."""
    return lambda tokens, sampled: physics.transfer(tokens)


def other_cache(scenario: Scenario) -> str | None:
    """What to say of a measured table whose KV is not what the scenario counts its memory in."""
    kind, _, argument = scenario.latency.partition(":")
    measured = _read(argument).kv_precision if kind == "table" else None
    if measured in (None, scenario.engine.kv_precision):
        return None
    counted = f"memory is counted with KV in {scenario.engine.kv_precision} (engine.kv_precision)"
    return f"{scenario.latency} was measured with KV in {measured}, {counted}"


def swinging(scenario: Scenario) -> str | None:
    """What to say of step times from a machine whose pace swung."""
    kind, _, argument = scenario.latency.partition(":")
    return said(_read(argument).pace) if kind == "table" else None


@lru_cache(maxsize=32)
def _read(file: str) -> LatencyProfile:
    own = named("latency").get(file)
    return read_latency(Path(str(own)) if own and not Path(file).exists() else Path(file))


@lru_cache(maxsize=32)
def fitted(asked: str) -> tuple[Coefficients, Band]:
    """Coefficients by NAME or path, or NAME:FRAMEWORK, and how far off they were on what was not in the fit."""
    name, _, framework = asked.partition(":")
    data = read_data(find("latency", name), name)
    try:
        found = Fitted(Coefficients(**data["coefficients"]), data.get("frameworks", {}))
        band = _band(data)
    except (KeyError, TypeError, ValueError) as wrong:
        raise ConfigError(f"latency: fit:{name}: it needs coefficients and a band ({wrong})") from None
    if framework and framework not in found.hosts:
        raise ConfigError(f"latency: fit:{asked}: {name} knows {', '.join(found.hosts) or 'no framework'}")
    return found.of(framework), band


@lru_cache(maxsize=8)
def host_of(framework: str) -> tuple[Host, Band]:
    """What a framework's host adds to measured operators, and how far off that was where it was not fitted."""
    data = read_data(find("latency", "silicon"), "silicon")
    if framework not in data["hosts"]:
        raise ConfigError(f"latency: silicon:{framework}: there are {', '.join(data['hosts'])}")
    return Host(**data["hosts"][framework]), _band(data)


def _band(data: Mapping[str, Any]) -> Band:
    """Raises KeyError, TypeError or ValueError."""
    shorter, longer = map(float, data["band"])
    return Band(shorter, longer)
