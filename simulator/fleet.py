"""The scenario's fleet as stations and devices: what fits, what each step takes, who shares a device with whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor

import numpy as np

from octavo.profiles.ensemble import Lora
from octavo.profiles.errors import ConfigError
from octavo.profiles.fleet import Placement
from octavo.profiles.model import Model
from octavo.profiles.scenario import Scenario
from octavo.runtime.core.scheduler import Limits
from octavo.runtime.core.trace import StepRecord
from octavo.simulator.arrivals import HASH_TOKENS
from octavo.simulator.device import Device
from octavo.simulator.lane import Lane
from octavo.simulator.latency.choose import choose
from octavo.simulator.latency.layers import Layers
from octavo.simulator.latency.model import LatencyModel
from octavo.simulator.latency.table import Table
from octavo.simulator.pace import Course, Paced
from octavo.simulator.station import Berth, Routing, Station
from octavo.simulator.truth import Truth

ACTIVATIONS = 0.05
"""Share of a device's memory for activations and the runtime's own buffers, beside weights and KV."""


@dataclass(eq=False, slots=True)
class Unit:
    """One replica: what it holds, and its devices (several, where a pipeline has several micro-batches under way)."""

    placement: Placement
    index: int
    names: tuple[str, ...]
    devices: list[Device]

    @property
    def idle(self) -> bool:
        return all(device.idle and device.empty for device in self.devices)


@dataclass(slots=True)
class Fleet:
    """What a scenario's placements come to, and how more of the same is made.

    For tests, `most_repeats` is how far a leap may go, and `skew` makes each replica slower than the one before it.
    `pace` is how many times longer than estimated every step takes. `swings` seeds how the pace of each device swings,
    where step times were measured on a machine whose pace did.
    """

    scenario: Scenario
    truth: Truth
    steps: list[StepRecord] | None = None
    stations: dict[str, Station] = field(default_factory=dict)
    units: list[Unit] = field(default_factory=list)
    most_repeats: int = 1 << 30
    skew: float = 0.0
    pace: float = 1.0
    swings: np.random.SeedSequence = field(default_factory=lambda: np.random.SeedSequence(0))
    _counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def replicas(self) -> list[tuple[Device, Placement]]:
        """Each device and the placement that it serves."""
        return [(device, unit.placement) for unit in self.units for device in unit.devices]

    def slow_down(self, pace: float) -> None:
        """Let every step take so many times as long, on the replicas that are there and on those to come."""
        for device, _ in self.replicas:
            device.skew *= pace / self.pace
        self.pace = pace

    def add(self, placement: Placement, index: int, names: tuple[str, ...], *, is_open: bool = True) -> Unit:
        """One more replica. Raises ConfigError when weights and some KV cache do not fit."""
        kind = f"{placement.tier}/{placement.hardware}"
        lanes = _lanes(self.scenario, placement, index, names, self.truth)
        swaps = _swaps(self.scenario, placement, lanes)
        devices = _replica(f"{kind}-{self._counts[kind]}", lanes, placement, swaps, self.steps)
        for lane in lanes:
            lane.most_repeats = self.most_repeats
        self._counts[kind] += 1
        for device in devices:
            device.skew = self.pace * (1 + self.skew * sum(self._counts.values()))
            device.pace = self._paced(device.lanes[0].latency)
        unit = Unit(placement, index, names, devices)
        self.units.append(unit)
        for device in devices:
            _moor(self, device, placement, is_open)
        return unit

    def _paced(self, latency: LatencyModel) -> Paced | None:
        """Each device is a machine of its own, and any of the lanes that were measured."""
        measured = latency.profile.pace if isinstance(latency, Table) else None
        if measured is None:
            return None
        (seed,) = self.swings.spawn(1)
        return Course(measured, seed).of(int(seed.generate_state(1)[0]))


def build(scenario: Scenario, truth: Truth, steps: list[StepRecord] | None, swings: np.random.SeedSequence) -> Fleet:
    """Every placement's replicas. Raises ConfigError when weights and some KV cache do not fit."""
    fleet = Fleet(scenario, truth, steps, swings=swings)
    missing = list(scenario.fleet.operations.down)
    for index, placement in enumerate(scenario.fleet.placement):
        names = scenario.names_of(placement)
        sets = [(name,) for name in names] if placement.mode == "dedicated" else [names] if names else []
        for together in sets:
            for _ in range(placement.replicas - away(missing, together)):
                fleet.add(placement, index, together)
            for name in together:
                fleet.stations.setdefault(name, Station(name, placement.tier, routing=placement.routing))
    return fleet


def away(missing: list[str], together: Sequence[str]) -> int:
    """How many replicas of models that stand together are away; they are struck off the list."""
    found = [name for name in missing if name in together]
    for name in found:
        missing.remove(name)
    return len(found)


def _swaps(scenario: Scenario, placement: Placement, lanes: list[Lane]) -> dict[Lane, float]:
    """Seconds to bring each lane's weights in from the host, where models are swapped; shards load side by side."""
    if placement.mode != "swapped":
        return {}
    bandwidth = scenario.hardware_of(placement).host_bandwidth * placement.devices
    sizes = {
        lane: _model(scenario, lane.models[0]).weight_bytes(scenario.precision_of(lane.models[0])) for lane in lanes
    }
    return {lane: size / bandwidth for lane, size in sizes.items()}


def _replica(
    name: str, lanes: list[Lane], placement: Placement, swaps: dict[Lane, float], steps: list[StepRecord] | None
) -> list[Device]:
    """The devices of a replica act as one whose lanes take turns; a pipeline acts as one per micro-batch.

    As many micro-batches as stages are under way at once, each in another stage, so none waits for the others
    (GPipe, Huang et al. 2019, with equal stages); each takes the whole pipeline's time for a step.
    """
    if placement.pipeline_parallel == 1:
        return [Device(name, lanes, swaps=swaps, steps=steps)]
    return [Device(f"{name}.{slot}", [lane], steps=steps) for slot, lane in enumerate(lanes)]


def _moor(fleet: Fleet, device: Device, placement: Placement, is_open: bool) -> None:
    routing: Routing = placement.routing
    for lane in device.lanes:
        for model in lane.models:
            station = fleet.stations.setdefault(model, Station(model, placement.tier, routing=routing))
            if station.tier != placement.tier:
                raise ConfigError(f"fleet.placement: {model} lives in two tiers, {station.tier} and {placement.tier}")
            station.berths.append(Berth(device, lane, is_open))


def _lanes(scenario: Scenario, placement: Placement, index: int, names: tuple[str, ...], truth: Truth) -> list[Lane]:
    """One lane per model and pipeline stage; LoRA experts share one."""
    lora = placement.mode == "lora"
    if lora and not isinstance(scenario.ensemble.adapters, Lora):
        raise ConfigError(f"fleet.placement.{index}.mode: lora needs ensemble.adapters of kind lora")
    shared = (names,) if lora else tuple((name,) for name in names)
    limits = _limits(scenario, placement, index, names, len(shared))
    lanes = []
    for models in shared:
        latency = _latency(scenario, placement, models)
        for stage in range(placement.pipeline_parallel):
            name = models[0] if placement.pipeline_parallel == 1 else f"{models[0]}.{stage}"
            lane = Lane(name, models, limits[models[0]], latency, truth)
            if isinstance(latency, Layers):
                lane.latency = latency.on(lane)
            lanes.append(lane)
    return lanes


def _latency(scenario: Scenario, placement: Placement, models: tuple[str, ...]) -> LatencyModel:
    rank, adapters = _adapters(scenario, placement, models)
    return choose(scenario, placement, models[0], rank, adapters)


def _adapters(scenario: Scenario, placement: Placement, models: tuple[str, ...]) -> tuple[int, int]:
    adapters = scenario.ensemble.adapters
    return (adapters.rank, len(models)) if placement.mode == "lora" and isinstance(adapters, Lora) else (0, 0)


def weight_bytes(scenario: Scenario, placement: Placement, names: tuple[str, ...]) -> float:
    """Of all models that are resident on one replica, together."""
    weights = [_model(scenario, name).weight_bytes(scenario.precision_of(name)) for name in names]
    rank, adapters = _adapters(scenario, placement, names)
    if rank:
        return weights[0] + 2.0 * adapters * _model(scenario, names[0]).lora_parameters(rank)
    return max(weights) if placement.mode == "swapped" else sum(weights)


def _limits(
    scenario: Scenario, placement: Placement, index: int, names: tuple[str, ...], lanes: int
) -> dict[str, Limits]:
    """What each lane's batch may hold; memory left beside the weights is shared out equally, by lanes and stages."""
    hardware, engine = scenario.hardware_of(placement), scenario.engine
    memory = hardware.memory * placement.devices * engine.memory_utilization * (1 - ACTIVATIONS)
    weights = weight_bytes(scenario, placement, names)
    share = (memory - weights) / lanes / placement.pipeline_parallel
    limits = {}
    for name in names:
        per_block = engine.block_size * _model(scenario, name).kv_bytes_per_token(engine.kv_precision)
        blocks = engine.kv_blocks or floor(share / per_block)
        if share <= 0 or blocks < 1:
            raise ConfigError(
                f"{scenario.name}: fleet.placement.{index}: {', '.join(names[:2])}{', ...' if len(names) > 2 else ''} "
                f"take {weights / 1e9:.1f} GB of the {memory / 1e9:.1f} GB that {placement.devices} x "
                f"{placement.hardware} may use, which leaves no room for keys and values; more tensor_parallel, a "
                "smaller precision or another hardware"
            )
        limits[name] = limits_of(scenario, blocks)
    return limits


def limits_of(scenario: Scenario, blocks: int) -> Limits:
    engine = scenario.engine
    rows = min(engine.max_num_seqs, engine.max_num_batched_tokens)
    return Limits(
        blocks,
        engine.block_size,
        rows,
        engine.max_num_batched_tokens,
        prefix_caching=engine.prefix_caching,
        hash_tokens=hash_tokens(scenario),
        chunked=engine.chunked_prefill,
        prefill_first=scenario.prefill_first,
    )


def hash_tokens(scenario: Scenario) -> int:
    """The size of a prefix chunk: a trace's own, or else all whole blocks of the prefix that every prompt shares."""
    block = scenario.engine.block_size
    if scenario.workload.arrivals.kind == "trace":
        return max(HASH_TOKENS // block, 1) * block
    return max(scenario.workload.shared_prefix_tokens // block, 1) * block


def _model(scenario: Scenario, name: str) -> Model:
    model = scenario.model_of(name)
    assert model is not None, f"{name} has a placement and no model"
    return model
