"""Simulated points: what a seed's run left behind, what several come to, and the processes that run them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from octavo.profiles.errors import ConfigError
from octavo.profiles.scenario import Scenario, Service, Targets
from octavo.simulator.estimate import Estimate
from octavo.simulator.latency.model import EXACT, Band
from octavo.simulator.metrics import Sample
from octavo.simulator.plan.space import Point
from octavo.simulator.run import Run, run

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[str, float], None]
Work = Callable[["Pool", T, Callable[[float], None]], R]
"""A larger piece of work, such as the search for one scenario; it has the pool simulate what it asks for."""
AT_LEAST = ("goodput", "availability", "accuracy")


@dataclass(frozen=True, slots=True)
class Trial:
    """One seed's run; `refused` says why there was none."""

    sample: Sample | None
    overloaded: str | None = None
    label: str = ""
    band: Band = EXACT
    refused: str | None = None
    strain: str = ""


def trial(task: tuple[Scenario, int]) -> Trial:
    """Runs in a worker; what is sent back is small."""
    try:
        done = run(*task)
    except ConfigError as error:
        return Trial(None, refused=str(error))
    lanes = [lane.latency for device, _ in done.fleet.replicas for lane in device.lanes]
    labels = dict.fromkeys(latency.label for latency in lanes)
    widest = Band.widest(latency.band for latency in lanes)
    return Trial(done.sample, done.overloaded, "; ".join(labels), widest, strain=_strain(task[0], done))


def _strain(scenario: Scenario, done: Run) -> str:
    """The busiest device; how many queries were late, and since when."""
    device, place = max(done.fleet.replicas, key=lambda pair: pair[0].busy)
    share = min(1.0, device.busy / max(done.seconds, device.time))
    said = f"busiest is {device.name} ({' and '.join(place.of)}), {share:.0%}"
    targets = scenario.targets
    allowed = targets.latency_p95 or targets.latency_p99 or targets.latency_p50
    if allowed is None:
        return said
    late = [query.arrival for query in done.world.queries if query.latency is None or query.latency > allowed]
    if not late:
        return said
    share = len(late) / len(done.world.queries)
    return f"{share:.0%} of the queries take more than {allowed:g} s, the first one after {late[0]:.0f} s; {said}"


@dataclass(frozen=True, slots=True)
class Miss:
    """A target that is not met; `reached` is None where nothing was measured."""

    target: str
    wanted: float
    reached: float | None

    @property
    def ratio(self) -> float:
        """How much worse than wanted, above 1."""
        if self.reached is None:
            return float("inf")
        return badness(self.target, self.wanted, self.reached)

    def __str__(self) -> str:
        if self.reached is None:
            return f"{self.target}: unknown, wanted {self.wanted:g}"
        return f"{self.target} {self.reached:.4g}, wanted {self.wanted:g} ({self.ratio - 1:.0%} off)"


def badness(name: str, wanted: float, reached: float) -> float:
    """Reached over wanted, or the reverse where more is better: at most 1 where the target is met."""
    above, below = (wanted, reached) if name in AT_LEAST else (reached, wanted)
    return above / below if below > 0 else float("inf") if above > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A point as simulated, and its cost without egress, USD/h. `where` is where its late queries spend their time.

    `down` is the same point without a replica of each of these models, where that was looked at.
    """

    point: Point
    metrics: dict[str, Estimate]
    usd_per_hour: float
    overloaded: str | None
    queries: int | None
    seeds: tuple[int, ...]
    label: str = ""
    band: Band = EXACT
    refused: str | None = None
    sketched: bool = False
    strain: str = ""
    where: str = ""
    down: Mapping[str, Evaluation] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> float:
        return self.metrics[metric].value

    def missed(self, targets: Service) -> tuple[Miss, ...]:
        """The targets that are not met with every device there, the worst first."""
        found = []
        for name, wanted in targets.wanted.items():
            reached = self.metrics[name].value if name in self.metrics else None
            if reached is None and self.sketched:
                continue
            if reached is None or badness(name, wanted, reached) > 1:
                found.append(Miss(name, wanted, reached))
        return tuple(sorted(found, key=lambda miss: -miss.ratio))

    def clearly_misses(self, targets: Service) -> bool:
        """Whether a target is missed even at the better end of its interval; an overload is always clear."""
        if self.refused or self.overloaded:
            return True
        return any(self._clear(miss) for miss in self.missed(targets))

    def _clear(self, miss: Miss) -> bool:
        found = self.metrics.get(miss.target)
        end = (found.high if miss.target in AT_LEAST else found.low) if found else None
        return end is not None and badness(miss.target, miss.wanted, end) > 1

    def meets(self, targets: Service) -> bool:
        """With every device there, and in all that was looked at with one away."""
        return self.whole(targets) and self.fails_without(targets) is None

    def whole(self, targets: Service) -> bool:
        """Whether it meets the targets with every device there."""
        return not self.refused and not self.overloaded and not self.missed(targets)

    def fails_without(self, targets: Service) -> str | None:
        """The first model whose replica it cannot do without, where the targets want it to."""
        if (served := spared(targets)) is None:
            return None
        return next((name for name, each in self.down.items() if not each.whole(served)), None)

    def worst(self, targets: Service) -> float:
        """The largest badness over the targets, with one device away too."""
        if self.refused or self.overloaded:
            return float("inf")
        have = [(n, w) for n, w in targets.wanted.items() if n in self.metrics or not self.sketched]
        ratios = [badness(n, w, self.metrics[n].value) if n in self.metrics else float("inf") for n, w in have]
        served = spared(targets)
        return max([*ratios, *(each.worst(served) for each in self.down.values() if served)], default=0.0)


def spared(targets: Service) -> Service | None:
    """The targets with one device away, where there are any."""
    return targets.n_minus_1 if isinstance(targets, Targets) else None


class Pool(AbstractContextManager["Pool"]):
    """All cores, or as many jobs as are asked for; results come in the order of the tasks, however many jobs."""

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs or os.cpu_count() or 1
        self._executor: ProcessPoolExecutor | None = None
        self.runs = 0

    def map(self, tasks: Sequence[tuple[Scenario, int]]) -> Iterable[Trial]:
        self.runs += len(tasks)
        if self.jobs == 1 or len(tasks) == 1:
            return [trial(task) for task in tasks]
        if self._executor is None:
            self._executor = ProcessPoolExecutor(self.jobs, initializer=_deaf)
        return list(self._executor.map(trial, tasks))

    def each(self, work: Work[T, R], tasks: Sequence[tuple[str, T]], progress: Progress) -> Iterator[R]:
        """What the work comes to for each named task, as soon as it is there."""
        for name, task in tasks:
            yield work(self, task, partial(progress, name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._executor is None:
            return
        if error is not None:  # nobody waits for what is under way
            for process in list((self._executor._processes or {}).values()):
                process.terminate()
        self._executor.shutdown(cancel_futures=True)


def _deaf() -> None:
    """A terminal's Ctrl-C is for the process that asks, which stops the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
