"""Sketches of points: each placement's batches followed on their own, a few hundred times as fast as a simulation.

Stages that several points share (the experts of one, with other judges) are followed once. Where the council withdraws
inferences, waits for a deadline or loses devices, a placement depends on the others and there is no sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from operator import attrgetter
from typing import Any

import numpy as np

from octavo.profiles.ensemble import Lora
from octavo.profiles.fleet import Placement
from octavo.profiles.policy import Filtered
from octavo.profiles.scenario import Scenario
from octavo.runtime.core.trace import QueryRecord
from octavo.simulator.arrivals import Open
from octavo.simulator.estimate import Floats
from octavo.simulator.fleet import ACTIVATIONS, away, weight_bytes
from octavo.simulator.latency.choose import choose
from octavo.simulator.latency.model import LatencyModel
from octavo.simulator.load import draw
from octavo.simulator.metrics import window, within
from octavo.simulator.overload import overload
from octavo.simulator.panel import VALUE, home, slots
from octavo.simulator.plan.batches import Asked, Ended, Engine, Lane, Limits, Reader
from octavo.simulator.plan.demand import WHOLE
from octavo.simulator.plan.space import Point, who
from octavo.simulator.streams import Streams

LOAD = attrgetter("load")
MODES = ("dedicated", "co-located", "lora")


@dataclass(frozen=True)
class Sketch:
    """What a point should reach, why it does not keep up, where it does not, and what its late queries wait for."""

    metrics: dict[str, float]
    overloaded: str | None
    strain: str
    where: str = ""


@dataclass(frozen=True)
class Stage:
    """Ends and first tokens by query and column, as seconds; NaN where the placement makes none.

    `busy` is for how many seconds its busiest device works.
    """

    ends: Floats
    first: Floats
    busy: float


@dataclass(frozen=True)
class Set:
    """Models that share each of so many replicas."""

    place: Placement
    names: list[str]
    replicas: int
    key: tuple[object, ...]


def is_sketchable(scenario: Scenario) -> bool:
    """Whether placements can be followed one after the other."""
    operations, arrivals = scenario.fleet.operations, scenario.workload.arrivals.kind
    moving = (operations.failures, operations.spot_preemption, operations.autoscale, operations.maintenance)
    if any(moving) or operations.outages or scenario.ensemble.deadline is not None:
        return False
    if scenario.prefill_first:
        return False
    return scenario.ensemble.policy.name in WHOLE and arrivals in ("poisson", "gamma", "weibull", "diurnal", "recorded")


@dataclass
class Sketcher:
    """Sketches points of one scenario on the queries of one seed."""

    scenario: Scenario
    seed: int
    stages: dict[object, Stage] = field(default_factory=dict)
    _alone: dict[str, dict[tuple[int, int], float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        load = draw(self.scenario, Streams(self.seed))
        assert isinstance(load.source, Open)
        self.times = np.array([ask.at for ask in load.source.asks])
        self.prompts = [ask.query.prompt_tokens for ask in load.source.asks]
        most = [ask.query.max_new_tokens for ask in load.source.asks]
        self.answers = np.minimum(np.array(load.truth.totals), np.array(most)[:, None])
        self.lengths: list[list[int]] = self.answers.tolist()
        self.outcomes = load.truth.outcomes
        self.columns = [name for name, _ in slots(self.scenario)]
        self.extra = getattr(self.scenario.ensemble.value, "extra_tokens", 0)
        block = self.scenario.engine.block_size
        caching = self.scenario.engine.prefix_caching
        self.found = self.scenario.workload.shared_prefix_tokens // block * block if caching else 0

    def of(self, point: Point) -> Sketch | None:
        """None where the point cannot be sketched."""
        places = list(zip(point.shape.placements, point.replicas, strict=True))
        if any(place.mode not in MODES or place.pipeline_parallel > 1 for place, _ in places):
            return None
        applied = point.applied(self.scenario)
        sets = list(self._sets(point))
        writing = [each for each in sets if each.names != [VALUE]]
        stages = [self._asked(applied, each) for each in writing]
        ends, first = _merged([stage.ends for stage in stages]), _merged([stage.first for stage in stages])
        # A judge that stands with experts hides when their answers were whole.
        beside = self._judged and any(VALUE in each.names for each in writing)
        paced = {} if beside else self._pace(ends, first)
        written = ends
        busy = [(stage.busy, who(each.place)) for stage, each in zip(stages, writing, strict=True)]
        judges = [each for each in sets if each.names == [VALUE]]
        if judges and self._judged:
            scored = self._judge(applied, tuple(each.key for each in sets), judges[0], ends)
            ends = scored.ends
            busy.append((scored.busy, who(judges[0].place)))
        found = self._summary(ends, first, paced, *max(busy))
        return (
            found
            if beside
            else replace(found, where=self._where(stages, [each.place for each in writing], written, ends))
        )

    def _sets(self, point: Point) -> Iterator[Set]:
        """Models that stand together and are asked, less what is down; sets without a replica are lost."""
        missing = list(self.scenario.fleet.operations.down)
        for place, count in zip(point.shape.placements, point.replicas, strict=True):
            names = [name for name in self.scenario.names_of(place) if name == VALUE or name in self.columns]
            for together in [[name] for name in names] if place.mode == "dedicated" else [names]:
                if together and (left := count - away(missing, together)) > 0:
                    yield Set(place, together, left, (point.shape.alone(place).key, *together, left))

    @property
    def accuracy(self) -> float | None:
        """Of answers after the warm-up, whatever the fleet; None where unknown, or more than the best score decides."""
        if not self.outcomes.known or self.scenario.ensemble.policy.name not in ("ensemble", "best_of_n", "single"):
            return None
        best = np.argmax(self.outcomes.value, axis=1)[:, None] if len(self.columns) > 1 else np.zeros((1, 1), dtype=int)
        right = np.take_along_axis(self.outcomes.right, np.broadcast_to(best, (len(self.times), 1)), axis=1)
        return float(np.mean(right[self._skipped :]))

    @property
    def _judged(self) -> bool:
        policy = self.scenario.ensemble.policy
        return not isinstance(policy, Filtered) and policy.name != "mean_logprob"

    def _pace(self, ends: Floats, first: Floats) -> dict[str, float]:
        """Seconds per token after the first, of answers that have one."""
        long = self.answers > 1
        long[: self._skipped] = False
        seconds = ((ends - first)[long] / (self.answers[long] - 1)) if long.any() else np.zeros(0)
        return {"tpot_p95": float(np.nanpercentile(seconds, 95))} if len(seconds) else {}

    @property
    def _skipped(self) -> int:
        """Queries of the warm-up."""
        return int(self.scenario.workload.warmup * len(self.times))

    def _asked(self, applied: Scenario, each: Set) -> Stage:
        """Experts of one set, and the judge where it stands with them."""
        if each.key not in self.stages:
            self.stages[each.key] = self._followed(applied, each.place, each.names, each.replicas)
        return self.stages[each.key]

    def _followed(self, applied: Scenario, place: Placement, names: Sequence[str], replicas: int) -> Stage:
        """One set of models that share devices, for all queries."""
        judged = VALUE in names and self._judged
        experts = [name for name in names if name != VALUE]
        engines = []
        for _ in range(replicas):
            lanes = self._lanes(applied, place, [*experts, *([VALUE] if VALUE in names else [])])
            engines.append(Engine(lanes, self._local(lanes[-1]) if judged else None))
        # LoRA experts share a lane.
        where = {name: 0 if place.mode == "lora" else index for index, name in enumerate(experts)}
        mine = {name: [c for c, owner in enumerate(self.columns) if owner == name] for name in experts}
        for query, time in enumerate(self.times.tolist()):
            for engine in engines:
                if engine.now < time:
                    engine.until(time)
            for name in experts:
                lane = min((engine.lanes[where[name]] for engine in engines), key=LOAD)
                lane.add(self._group(query, mine[name]))
        for engine in engines:
            engine.until(inf)
        writing = [lane for engine in engines for lane in (engine.lanes[:-1] if judged else engine.lanes)]
        ending = [engine.lanes[-1] for engine in engines] if judged else writing
        ended, first = (self._table(lists) for lists in ([e.ended for e in ending], [e.first for e in writing]))
        return Stage(ended, first, max(engine.busy for engine in engines))

    def _group(self, query: int, columns: Sequence[int]) -> Asked:
        tokens, answers = self.prompts[query], self.lengths[query]
        found = min(self.found, tokens - 1)
        return Asked(query, tokens - found, found, tuple([answers[c] for c in columns]), tuple(columns))

    def _verdict(self, query: int, column: int) -> Asked:
        tokens = self.prompts[query] + self.lengths[query][column] + self.extra
        found = min(self.found, tokens - 1)
        return Asked(query, tokens - found, found, (), (column,))

    def _local(self, lane: Lane) -> Callable[[Ended], None]:
        def judge(ended: Ended) -> None:
            lane.add(self._verdict(ended[1], ended[2]))

        return judge

    def _judge(self, applied: Scenario, key: object, judges: Set, ends: Floats) -> Stage:
        """When each candidate has its score, by judges on devices of their own."""
        if key not in self.stages:
            replicas = judges.replicas
            lane = self._lanes(applied, judges.place, [VALUE])[0]
            alone = self._alone.setdefault(lane.latency.label, {})
            readers = [Reader(lane.latency, lane.limits.step_tokens, alone) for _ in range(replicas)]
            queries, columns = np.nonzero(np.isfinite(ends))
            times = ends[queries, columns].tolist()
            tokens = (self.lengths_of(queries, columns)).tolist()
            found = np.minimum(self.found, np.array(tokens) - 1).tolist()
            for index in np.argsort(times, kind="stable").tolist():
                time = times[index]
                for reader in readers:
                    if reader.next < time:
                        reader.until(time)
                least = readers[0] if replicas == 1 else min(readers, key=LOAD)
                least.add(time, tokens[index] - found[index], found[index], index)
            scored = np.full(self.answers.shape, np.nan)
            for reader in readers:
                reader.until(inf)
                for end, index in reader.read:
                    scored[queries[index], columns[index]] = end
            self.stages[key] = Stage(scored, scored, max(reader.busy for reader in readers))
        return self.stages[key]

    def lengths_of(self, queries: Any, columns: Any) -> Any:
        """Tokens that a judge reads of these candidates."""
        return np.array(self.prompts)[queries] + self.answers[queries, columns] + self.extra

    def _lanes(self, applied: Scenario, place: Placement, names: Sequence[str]) -> list[Lane]:
        """One per model; one for all LoRA experts. Memory beside the weights is shared out equally."""
        engine, lora = applied.engine, applied.ensemble.adapters
        shared = place.mode == "lora" and isinstance(lora, Lora)
        rank, adapters = (lora.rank, len(names)) if shared and isinstance(lora, Lora) else (0, 0)
        alone = names[:1] if shared else names
        memory = applied.hardware_of(place).memory * place.devices * engine.memory_utilization * (1 - ACTIVATIONS)
        room = (memory - weight_bytes(applied, place, tuple(names))) / len(alone)
        rows = min(engine.max_num_seqs, engine.max_num_batched_tokens)
        lanes = []
        for name in alone:
            latency: LatencyModel = choose(applied, place, name, rank, adapters)
            model = applied.model_of(name)
            assert model is not None
            blocks = engine.kv_blocks * engine.block_size if engine.kv_blocks else None
            tokens = blocks or room / model.kv_bytes_per_token(engine.kv_precision)
            lanes.append(Lane(latency, Limits(rows, engine.max_num_batched_tokens, tokens)))
        return lanes

    def _table(self, lists: Sequence[Sequence[Ended]]) -> Floats:
        found = np.full(self.answers.shape, np.nan)
        for ended in lists:
            for time, query, column in ended:
                found[query, column] = time
        return found

    def _summary(self, ends: Floats, first: Floats, paced: dict[str, float], busy: float, busiest: str) -> Sketch:
        scenario = self.scenario
        trip = self._trip()
        policy = scenario.ensemble.policy
        checked = policy.verifier_seconds if isinstance(policy, Filtered) else 0.0
        answered = np.nanmax(ends, axis=1) + trip + checked
        records = [
            QueryRecord(i, at, 0, ended=end) for i, (at, end) in enumerate(zip(self.times, answered, strict=True))
        ]
        latency = (answered - self.times)[self._skipped :]
        ttft = (np.nanmin(first, axis=1) + trip / 2 - self.times)[self._skipped :]
        numbers = paced | {f"latency_p{p}": float(np.percentile(latency, p)) for p in (50, 95, 99)}
        numbers["ttft_p95"] = float(np.percentile(ttft, 95))
        if last := window(scenario, records):
            good = within(scenario.targets, latency, ttft) / len(latency)
            numbers["goodput"] = good * len(records) / last
        share = min(1.0, busy / float(np.max(answered)))
        strain = f"{self._late(answered)}busiest is a device of {busiest}, {share:.0%}"
        return Sketch(numbers, overload(scenario.workload.arrivals, records), strain)

    def _late(self, answered: Floats) -> str:
        """How many queries take longer than they may, and since when."""
        allowed = self._allowed
        late = np.nonzero(answered - self.times > allowed)[0]
        if not len(late):
            return ""
        share, since = len(late) / len(self.times), self.times[late[0]]
        return f"{share:.0%} of the queries take more than {allowed:g} s, the first one after {since:.0f} s; "

    def _where(self, stages: Sequence[Stage], places: Sequence[Placement], written: Floats, ends: Floats) -> str:
        """What queries that take too long wait for: their last candidate, and then their last score."""
        whole, scored = np.nanmax(written, axis=1), np.nanmax(ends, axis=1)
        late = scored - self.times > self._allowed
        if not late.any():
            return ""
        last = np.array([np.nanmax(stage.ends, axis=1)[late] for stage in stages])
        slowest = who(places[int(np.argmax(np.bincount(np.nanargmax(last, axis=0), minlength=len(places))))])
        writing, judging = float(np.median((whole - self.times)[late])), float(np.median((scored - whole)[late]))
        then = f", then {judging:.3g} s for value" if judging > 0 else ""
        return f"late ones wait {writing:.3g} s for {slowest}{then}"

    @property
    def _allowed(self) -> float:
        """The latency that is too long for a query."""
        targets = self.scenario.targets
        return targets.latency_p95 or targets.latency_p99 or targets.latency_p50 or inf

    def _trip(self) -> float:
        """Seconds there and back between client and council."""
        link = self.scenario.fleet.tiers[home(self.scenario)].client_link
        return self.scenario.links[link].rtt if link else 0.0


def _merged(tables: Sequence[Floats]) -> Floats:
    """Each column is filled by one of the tables."""
    found = tables[0].copy()
    for table in tables[1:]:
        np.copyto(found, table, where=np.isfinite(table))
    return found
