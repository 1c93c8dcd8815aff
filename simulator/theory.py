"""Queues whose answer is known in closed form, and what the simulator makes of them.

Steps of constant length turn a device into servers: with room for c rows it is a queue with c servers, and a row's
tokens are its service time in units of one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import factorial

import numpy as np

from octavo.runtime.core.policies import policy_named
from octavo.runtime.core.query import Candidate, Ensemble, Inference, Query, Score
from octavo.runtime.core.scheduler import Chunk, Limits
from octavo.runtime.core.trace import InferenceRecord, QueryRecord
from octavo.simulator.arrivals import Open
from octavo.simulator.device import Device
from octavo.simulator.estimate import Estimate, Floats, over_seeds
from octavo.simulator.lane import Lane
from octavo.simulator.latency.model import EXACT, Band, Line
from octavo.simulator.station import Berth, Station
from octavo.simulator.truth import left_to_write
from octavo.simulator.world import Ask, World

STEP = 1 / 400
"""Seconds of a step; mean service is one second, so that rounding to whole steps is a quarter of a per cent."""


# Closed forms, with mean service 1 second and utilisation `load` (of each server).


def mm1_wait(load: float) -> float:
    """Mean wait in M/M/1 (Kleinrock, Queueing Systems I, 1975, section 3.2)."""
    return load / (1 - load)


def mmc_wait(servers: int, load: float) -> float:
    """Mean wait in M/M/c by Erlang's C formula (Kleinrock 1975, section 3.5)."""
    offered = servers * load
    last = offered**servers / factorial(servers) / (1 - load)
    busy = last / (sum(offered**k / factorial(k) for k in range(servers)) + last)
    return busy / (servers * (1 - load))


def mg1_wait(load: float, cv2: float) -> float:
    """Mean wait in M/G/1 (Pollaczek-Khinchine); `cv2` is the squared coefficient of variation of the service."""
    return load * (1 + cv2) / (2 * (1 - load))


def fork_join_2(load: float) -> float:
    """Mean response of two parallel M/M/1 that are joined (Flatto and Hahn 1984; Nelson and Tantawi 1988, eq. 6)."""
    return (12 - load) / 8 / (1 - load)


def fork_join(servers: int, load: float) -> float:
    """Approximate response of K parallel M/M/1 that are joined (Nelson and Tantawi 1988, eq. 14)."""
    harmonic = sum(1 / k for k in range(1, servers + 1))
    return (harmonic / 1.5 + 4 / 11 * (1 - harmonic / 1.5) * load) * fork_join_2(load)


def batch_mm1_number(size: int, load: float) -> float:
    """Mean number in M^[X]/M/1 with batches of constant size (Gross and Harris 1998, section 3.1)."""
    return load * (size + 1) / (2 * (1 - load))


# The same queues, simulated.


@dataclass(frozen=True, slots=True)
class Metronome:
    """Every step takes equally long, whatever it does."""

    label: str = "constant"
    band: Band = EXACT

    def decode(self, rows: int, context: int) -> Line:
        return Line(STEP, 0.0)

    def mixed(self, rows: int, context: int, chunks: Sequence[Chunk]) -> float:
        return STEP


@dataclass(frozen=True, slots=True)
class Services:
    """Service times in steps, by query and expert."""

    steps: list[list[int]]
    experts: tuple[str, ...]

    def length(self, inference: Inference) -> int:
        return left_to_write(self.steps[inference.query.id][self.experts.index(inference.model)], inference)

    def result(self, inference: Inference, new_tokens: int) -> Candidate | Score:
        return Candidate(inference, new_tokens)

    def correct(self, candidate: Candidate) -> bool | None:
        return None

    def seconds_to_verify(self, inference: Inference) -> float | None:
        return None


@dataclass(frozen=True, slots=True)
class Queueing:
    """Customers of `experts` tasks each; a device per expert, or (`shared`) one for all; `servers` rows in each."""

    load: float
    experts: int = 1
    servers: int = 1
    shared: bool = False
    service: Callable[[np.random.Generator, tuple[int, int]], Floats] = lambda random, shape: random.exponential(
        1.0, shape
    )

    def run(self, customers: int, seed: int) -> World:
        arrivals, services = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
        names = tuple(f"e{i}" for i in range(self.experts))
        rate = self.load * self.servers / (self.experts if self.shared else 1)
        times = np.cumsum(arrivals.exponential(1 / rate, customers))
        steps = np.maximum(np.rint(self.service(services, (customers, self.experts)) / STEP), 1).astype(int)
        truth = Services(steps.tolist(), names)
        top = int(steps.max())
        limits = Limits(self.servers * (top + 32) // 16 + 16, max_rows=self.servers, max_step_tokens=1024)
        asks = [Ask(float(at), Query(i, 1, top)) for i, at in enumerate(times)]
        world = World(
            Open(asks), Ensemble(names, 1), policy_named("mean_logprob"), self._stations(names, limits, truth), truth
        )
        world.run()
        return world

    def _stations(self, names: tuple[str, ...], limits: Limits, truth: Services) -> dict[str, Station]:
        if self.shared:
            lane = Lane("all", names, limits, Metronome(), truth)
            berth = Berth(Device("all", [lane]), lane)
            return {name: Station(name, "", [berth]) for name in names}
        lanes = [Lane(name, (name,), limits, Metronome(), truth) for name in names]
        return {lane.name: Station(lane.name, "", [Berth(Device(lane.name, [lane]), lane)]) for lane in lanes}


def constant(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.ones(shape)


def lognormal(cv2: float, random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    variance = np.log1p(cv2)
    return random.lognormal(-variance / 2, np.sqrt(variance), shape)


def wait(world: World) -> float:
    """Mean seconds that an inference waits before its first step, warm-up left out."""
    late = _settled(world.inferences)
    return float(np.mean([(r.scheduled or 0.0) - r.submitted for r in late]))


def response(world: World) -> float:
    """Mean seconds from arrival to answer."""
    return float(np.mean([query.latency or 0.0 for query in _settled(world.queries)]))


def number(world: World) -> float:
    """Mean inferences in the system, by Little's law from the time they spend in it."""
    late = _settled(world.inferences)
    start, end = min(r.submitted for r in late), max(r.submitted for r in late)
    return float(np.sum([(r.ended or 0.0) - r.submitted for r in late]) / (end - start))


def _settled(records: list[InferenceRecord] | list[QueryRecord]) -> list:  # type: ignore[type-arg]
    ordered = sorted(records, key=lambda r: r.query)
    return ordered[len(ordered) // 10 :]


@dataclass(frozen=True, slots=True)
class Law:
    """A queue, what is asked of it, and the exact answer (or an approximation that is known to be close)."""

    name: str
    quantity: str
    queue: Queueing
    measure: Callable[[World], float]
    exact: float
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """What was simulated beside what is exact."""

    law: Law
    simulated: Estimate

    @property
    def error(self) -> float:
        return self.simulated.value / self.law.exact - 1

    @property
    def holds(self) -> bool:
        """The exact value lies inside the interval, widened by the approximation's own error and that of rounding."""
        half = (self.simulated.half_width or 0.0) + (self.law.tolerance + 0.005) * self.law.exact
        return abs(self.simulated.value - self.law.exact) <= half


def laws() -> list[Law]:
    """The table's rows."""
    return [
        Law("M/M/1, load 0.8", "mean wait", Queueing(0.8), wait, mm1_wait(0.8)),
        Law("M/M/8, load 0.8", "mean wait", Queueing(0.8, servers=8), wait, mmc_wait(8, 0.8)),
        Law("M/D/1, load 0.8", "mean wait", Queueing(0.8, service=constant), wait, mg1_wait(0.8, 0.0)),
        Law(
            "M/G/1 lognormal, cv² 4, load 0.7",
            "mean wait",
            Queueing(0.7, service=partial(lognormal, 4.0)),
            wait,
            mg1_wait(0.7, 4.0),
        ),
        Law("fork-join K=2, load 0.7", "mean response", Queueing(0.7, experts=2), response, fork_join_2(0.7)),
        Law("fork-join K=8, load 0.5", "mean response", Queueing(0.5, experts=8), response, fork_join(8, 0.5), 0.05),
        Law(
            "M^[16]/M/1, load 0.6",
            "mean number",
            Queueing(0.6, experts=16, shared=True),
            number,
            batch_mm1_number(16, 0.6),
        ),
    ]


QUICK = 4000, 4
"""Customers and seeds of a table that takes seconds rather than minutes."""


def table(customers: int = 20_000, seeds: Sequence[int] = range(10)) -> list[Row]:
    """Every law, simulated with these seeds; a customer is sixteen of them where a batch is."""
    return [row(law, max(300, customers // law.queue.experts), seeds) for law in laws()]


def row(law: Law, customers: int, seeds: Sequence[int]) -> Row:
    return Row(law, over_seeds([law.measure(law.queue.run(customers, seed)) for seed in seeds]))


def littles_gap(customers: int = 1000) -> float:
    """Relative difference of the time integral of the number in a system and the sum of the times in it: rounding."""
    queries = Queueing(0.7).run(customers, 0).queries
    changes = sorted([(q.arrival, 1) for q in queries] + [(q.ended or 0.0, -1) for q in queries])
    times, steps = np.array(changes).T
    integral = float(np.sum(np.cumsum(steps)[:-1] * np.diff(times)))
    return abs(integral / sum(q.latency or 0.0 for q in queries) - 1)
