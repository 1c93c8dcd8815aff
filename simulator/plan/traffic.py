"""More of the same traffic, and the same fleet with slower steps."""

from __future__ import annotations

from typing import TypeVar

from octavo.profiles.scenario import Scenario, Service
from octavo.profiles.workload import AtOnce, ClosedLoop, Recorded, TraceFile

ServiceT = TypeVar("ServiceT", bound=Service)
TIMES = ("ttft_p95", "tpot_p95", "latency_p50", "latency_p95", "latency_p99")


def scaled(scenario: Scenario, factor: float) -> Scenario | None:
    """The scenario with `factor` times the traffic; None where arrivals have no rate (all at once)."""
    arrivals = scenario.workload.arrivals
    match arrivals:
        case AtOnce():
            return None
        case ClosedLoop(clients=clients):
            changed: object = arrivals.model_copy(update={"clients": max(1, round(clients * factor))})
        case Recorded(times=times):
            changed = arrivals.model_copy(update={"times": tuple(time / factor for time in times)})
        case TraceFile(speed=speed):
            changed = arrivals.model_copy(update={"speed": speed * factor})
        case _:
            changed = arrivals.model_copy(update={"rate": arrivals.rate * factor})
    return scenario.model_copy(update={"workload": scenario.workload.model_copy(update={"arrivals": changed})})


def _hastened(scenario: Scenario, factor: float) -> Scenario:
    """As seen from a clock that runs slower: queries that come of themselves come sooner; those that wait do not."""
    arrivals = scenario.workload.arrivals
    if isinstance(arrivals, AtOnce):
        return scenario
    if not isinstance(arrivals, ClosedLoop):
        return scaled(scenario, factor) or scenario
    changed = arrivals.model_copy(update={"think": arrivals.think / factor})
    return scenario.model_copy(update={"workload": scenario.workload.model_copy(update={"arrivals": changed})})


def slowed(scenario: Scenario, factor: float) -> Scenario:
    """What a fleet whose steps take `factor` times as long is to: a clock that runs slower meets traffic that comes
    faster and targets that are shorter. (The network is slowed along with the steps; it takes milliseconds.)
    """
    faster = _hastened(scenario, factor)
    targets, spare = _sooner(scenario.targets, factor), scenario.targets.n_minus_1
    if spare:
        targets = targets.model_copy(update={"n_minus_1": _sooner(spare, factor)})
    return faster.model_copy(update={"targets": targets})


def _sooner(targets: ServiceT, factor: float) -> ServiceT:
    times = {name: value / factor for name in TIMES if (value := getattr(targets, name)) is not None}
    rate = {} if targets.goodput is None else {"goodput": targets.goodput * factor}
    return targets.model_copy(update={**times, **rate})
