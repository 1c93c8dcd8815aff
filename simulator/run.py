"""Simulates a scenario: every seed a run of its own, on the same arrivals whatever the policy or the fleet."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from octavo.profiles.errors import ConfigError
from octavo.profiles.fleet import Placement
from octavo.profiles.load import baselines
from octavo.profiles.scenario import Scenario
from octavo.runtime.core.trace import InferenceRecord, Record, StepRecord
from octavo.simulator.arrivals import DEFAULT_QUERIES, Recording
from octavo.simulator.cost import bill, dynamic_joules, watts
from octavo.simulator.deadline import uncovered
from octavo.simulator.device import Device
from octavo.simulator.fleet import Fleet, build
from octavo.simulator.independent import Independent, is_independent
from octavo.simulator.latency.choose import other_cache, swinging
from octavo.simulator.latency.model import Band
from octavo.simulator.load import draw
from octavo.simulator.metrics import Sample, estimates, mean_costs, sample, window
from octavo.simulator.network import CLIENT, Network
from octavo.simulator.operations import Operations
from octavo.simulator.overload import overload, unsaid
from octavo.simulator.panel import home, panel
from octavo.simulator.recorded import remarks
from octavo.simulator.result import MOST_LATENCIES, Result, Track
from octavo.simulator.spare import silenced, victims, with_spares
from octavo.simulator.streams import Streams
from octavo.simulator.supported import check
from octavo.simulator.tokens import Tokens
from octavo.simulator.world import World

Progress = Callable[[str, float], None]
"""Told what is being simulated, and how much of it is done in [0, 1]."""
WORTH_PROCESSES = 1_000_000
"""Inferences of all seeds together from which several processes are worth their start."""


@dataclass(slots=True)
class Run:
    """One seed's run and what it left behind."""

    world: World
    fleet: Fleet
    sample: Sample
    seconds: float
    devices: dict[tuple[str, str], float]
    operations: dict[str, int]
    overloaded: str | None
    steps: list[StepRecord] = field(default_factory=list)


@dataclass(slots=True)
class Kept:
    """What a result needs of a run: little beside its sample, so that it can come from another process.

    `reasons` holds that of the first query of each outcome.
    """

    sample: Sample
    devices: dict[tuple[str, str], float]
    operations: dict[str, int]
    overloaded: str | None
    outcomes: dict[str, int]
    reasons: dict[str, str]
    latency_model: str
    band: Band
    tracks: tuple[Track, ...] = ()
    records: tuple[Record, ...] = ()
    unsaid: str | None = None


def simulate(
    scenario: Scenario,
    *,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
    trace: bool = False,
    name: str | None = None,
) -> Result:
    """Run the scenario once per seed, on all cores. `trace` keeps the first seed's records. Raises ConfigError.

    Where `targets.n_minus_1` wants it, it runs again with each kind of replica away.
    """
    check(scenario)
    chosen = tuple(scenario.seeds if seeds is None else seeds)
    tasks = [Task(scenario, seed, trace=trace and not i) for i, seed in enumerate(chosen)]
    runs = all_runs(tasks, name or scenario.name, progress)
    result = _whole(name or scenario.name, scenario, chosen, runs)
    if scenario.targets.n_minus_1 is None or result.overloaded:
        return result
    return with_spares(result, {each: _one_away(scenario.without(each), chosen) for each in victims(scenario)})


def _whole(name: str, scenario: Scenario, seeds: tuple[int, ...], runs: list[Kept]) -> Result:
    return uncovered(_result(name, scenario, seeds, runs), lambda patient: simulate(patient, seeds=seeds[:1]))


def _one_away(scenario: Scenario, seeds: tuple[int, ...]) -> Result | str:
    return silenced(scenario) or simulate(scenario, seeds=seeds)


@dataclass(frozen=True, slots=True)
class Task:
    """A run to make: every step takes `pace` times as long; records are kept with `trace`."""

    scenario: Scenario
    seed: int
    trace: bool = False
    pace: float = 1.0

    @property
    def inferences(self) -> int:
        """About how many it starts."""
        return (self.scenario.workload.queries or DEFAULT_QUERIES) * self.scenario.ensemble.inferences_per_query


def all_runs(tasks: Sequence[Task], name: str, progress: Progress | None) -> list[Kept]:
    """What is kept of each, in their order; `progress` is told how many are done."""
    runs: list[Kept] = []
    if progress:
        progress(name, 0.0)
    for kept in each_run(tasks):
        runs.append(kept)
        if progress:
            progress(name, len(runs) / len(tasks))
    return runs


def each_run(tasks: Sequence[Task]) -> Iterable[Kept]:
    """What is kept of each, in their order.

    Long ones go to all cores, so that what a run holds in memory is held as often as there are cores. Short ones are
    done before processes would have begun.
    """
    processes = min(cores(), len(tasks))
    if processes < 2 or sum(task.inferences for task in tasks) < WORTH_PROCESSES:
        yield from map(run_kept, tasks)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run_kept, tasks)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def simulate_all(
    scenario: Scenario, *, seeds: Sequence[int] | None = None, progress: Progress | None = None, trace: bool = False
) -> list[Result]:
    """The scenario, and its baselines after it, all on the same seeds."""
    first = simulate(scenario, seeds=seeds, progress=progress, trace=trace)
    return [first, *(simulate(s, seeds=seeds, progress=progress, name=n) for n, s in baselines(scenario).items())]


def simulate_until(
    scenario: Scenario,
    within: float = 0.02,
    metric: str = "latency_p95",
    *,
    most: int = 64,
    progress: Progress | None = None,
) -> Result:
    """Add seeds until the metric's 95 % interval reaches no further than this share of it, or `most` are used."""
    check(scenario)
    runs: list[Kept] = []
    while True:
        seeds = tuple(range(len(runs), min(most, max(4, 2 * len(runs)))))
        runs += each_run([Task(scenario, seed) for seed in seeds])
        result = _result(scenario.name, scenario, tuple(range(len(runs))), runs)
        found = result.metrics.get(metric)
        if found is None:
            raise ConfigError(f"until: no metric {metric!r}; there are {', '.join(sorted(result.metrics))}")
        if progress:
            progress(scenario.name, len(runs) / most)
        tight = found.half_width is not None and found.half_width <= within * abs(found.value)
        if tight or result.overloaded or len(runs) >= most:
            return _whole(scenario.name, scenario, result.seeds, runs)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for reference cycles seldom: a run makes millions of objects, nearly all free of cycles and soon gone."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 100)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@dataclass(slots=True)
class Prepared:
    """A run that has not begun."""

    world: World
    fleet: Fleet
    operations: Operations
    tokens: Tokens
    kept: list[InferenceRecord]
    steps: list[StepRecord]


def run(scenario: Scenario, seed: int, *, trace: bool = False, pace: float = 1.0) -> Run:
    """One run to its end. `pace`: every step takes so many times as long."""
    ready = prepare(scenario, seed, trace=trace)
    ready.fleet.slow_down(pace)
    ready.operations.begin()
    with rare_collections():
        ready.world.run()
    ready.world.inferences = ready.kept
    return _measured(scenario, ready)


def prepare(
    scenario: Scenario, seed: int, *, trace: bool = False, apart: bool = True, recorded: Recording | None = None
) -> Prepared:
    """Everything in its place at time zero; devices run apart where they can, unless that is not wanted.

    A `recorded` load takes the place of the scenario's workload.
    """
    streams = Streams(seed)
    load = draw(scenario, streams, recorded)
    steps: list[StepRecord] = []
    fleet = build(scenario, load.truth, steps if trace else None, streams.seed_of("pace"))
    ensemble, policy = panel(scenario)
    kept: list[InferenceRecord] = []
    tokens = Tokens(int(scenario.workload.warmup * load.queries), kept if trace else None)
    kind = Independent if apart and is_independent(scenario, fleet.stations) else World
    world = kind(
        load.source,
        ensemble,
        policy,
        fleet.stations,
        load.truth,
        network=network(scenario, streams),
        home=home(scenario),
        deadline=scenario.ensemble.deadline,
        overhead=scenario.engine.request_overhead,
        context=load.context,
        keep=tokens.keep,
    )
    return Prepared(world, fleet, Operations(scenario, world, fleet, streams), tokens, kept, steps)


def network(scenario: Scenario, streams: Streams) -> Network:
    """The scenario's links; two tiers that no link connects speak through the client's links."""
    links = {}
    for name, tier in scenario.fleet.tiers.items():
        if tier.client_link:
            links[frozenset((CLIENT, name))] = scenario.links[tier.client_link]
    for one, other in combinations(scenario.fleet.tiers, 2):
        between = scenario.fleet.link_between(one, other)
        # Without a link of their own, tiers speak over what connects the one that is not the council's to the world.
        far = scenario.fleet.tiers[one if other == home(scenario) else other].client_link
        if between or far:
            links[frozenset((one, other))] = scenario.links[between or str(far)]
    return Network(links, streams.seed_of("network"))


def _measured(scenario: Scenario, ready: Prepared) -> Run:
    world, fleet = ready.world, ready.fleet
    full = overload(scenario.workload.arrivals, world.queries)
    seconds = window(scenario, world.queries, overloaded=full is not None)
    there = _device_seconds(scenario, ready.operations, seconds)
    busy = float(np.mean([min(1.0, device.busy / max(seconds, device.time)) for device, _ in fleet.replicas]))
    paid = bill(scenario, there, dynamic_joules(scenario, fleet.replicas), world.network.bytes_sent)
    found = sample(scenario, world.queries, ready.tokens.seconds, paid, busy, seconds)
    devices = {key: there_for / seconds for key, there_for in there.items()}
    return Run(world, fleet, found, seconds, devices, ready.operations.counts, full, ready.steps)


def run_kept(task: Task) -> Kept:
    """A run to its end, and what is kept of it."""
    scenario, trace = task.scenario, task.trace
    done = run(scenario, task.seed, trace=trace, pace=task.pace)
    queries, replicas = done.world.queries, done.fleet.replicas
    end = max(query.ended or query.arrival for query in queries)
    models = [lane.latency for device, _ in replicas for lane in device.lanes]
    return Kept(
        done.sample,
        done.devices,
        done.operations,
        done.overloaded,
        dict(Counter(query.outcome for query in queries)),
        {query.outcome: query.reason for query in reversed(queries)},
        "; ".join(dict.fromkeys(model.label for model in models)),
        Band.widest(model.band for model in models),
        tuple(_track(scenario, device, place, end) for device, place in replicas),
        (*queries, *done.world.inferences, *done.steps) if trace else (),
        unsaid(scenario.workload, len(queries), done.seconds),
    )


def _track(scenario: Scenario, device: Device, place: Placement, end: float) -> dict[str, Any]:
    """A replica over time."""
    track = device.timeline.track(end)
    return {"device": device.name, **track, "watts": watts(scenario, device, place, track["utilisation"])}


def _device_seconds(scenario: Scenario, operations: Operations, seconds: float) -> dict[tuple[str, str], float]:
    """What is paid for: all that the tiers have, or what was there where replicas come and go."""
    facts = scenario.fleet.operations
    if facts.autoscale or facts.spot_preemption:
        return operations.device_seconds(seconds)
    return {key: count * seconds for key, count in scenario.devices().items()}


def _result(name: str, scenario: Scenario, seeds: tuple[int, ...], runs: list[Kept]) -> Result:
    """Raises ConfigError where no device ran a single step: that is a mistake in the scenario, and not a result."""
    first = runs[0]
    if not any(one.sample.numbers["utilisation"] for one in runs) and not any(one.operations for one in runs):
        reason = next(iter(first.reasons.values()))
        room = (
            "engine.kv_blocks, memory_utilization and fleet.placement make the room in memory, "
            "max_num_batched_tokens and chunked_prefill that of a step"
        )
        raise ConfigError(f"{name}: no query could run at all: {reason}; {room}")
    samples = [one.sample for one in runs]
    return Result(
        name,
        scenario,
        estimates(samples),
        mean_costs(samples),
        mean_devices(runs),
        first.latency_model,
        first.band,
        next((one.overloaded for one in runs if one.overloaded), None),
        _notes(scenario, runs),
        seeds,
        _quantiles(first.sample.latency),
        first.tracks,
        first.records,
    )


def mean_devices(runs: list[Kept]) -> dict[tuple[str, str], float]:
    """Mean number of devices that were there, per tier and hardware."""
    return {key: float(np.mean([one.devices.get(key, 0.0) for one in runs])) for key in runs[0].devices}


def _notes(scenario: Scenario, runs: list[Kept]) -> tuple[str, ...]:
    notes = []
    deadline = scenario.ensemble.deadline
    if deadline is not None and not any(one.sample.numbers["availability"] for one in runs):
        notes.append(f"INFEASIBLE: no query is answered within its deadline of {deadline:g} s (ensemble.deadline)")
    for what in ("rejected", "failed"):
        count = sum(one.outcomes.get(what, 0) for one in runs)
        reasons = [one.reasons[what] for one in runs if what in one.reasons]
        notes += [f"{count} queries {what}; the first: {reasons[0]}"] if count else []
    happened = Counter(kind for one in runs for kind in Counter(one.operations).elements())
    notes += [f"{kind}: {count} in {len(runs)} runs" for kind, count in sorted(happened.items())]
    used = [scenario.model_of(expert.name) for expert in scenario.ensemble.experts]
    rumours = sorted({model.name for model in used if model and model.rumour})
    said = runs[0].unsaid, other_cache(scenario), _schedule(scenario), swinging(scenario)
    notes += [each for each in said if each]
    return (*notes, *remarks(scenario), *(f"{name} is a rumour" for name in rumours))


def _schedule(scenario: Scenario) -> str | None:
    """What follows from the step times alone is said."""
    if scenario.engine.schedule != "auto" or not scenario.prefill_first:
        return None
    return f"prompts go before decodes, as {scenario.latency} does (engine.schedule)"


def _quantiles(latency: np.ndarray) -> tuple[float, ...]:
    """The sample in order, thinned to at most so many evenly spaced quantiles."""
    ordered = np.sort(latency)
    if len(ordered) > MOST_LATENCIES:
        ordered = np.quantile(ordered, np.linspace(0, 1, MOST_LATENCIES))
    return tuple(float(seconds) for seconds in ordered)
