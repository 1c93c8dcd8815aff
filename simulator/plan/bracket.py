"""Closed forms that bracket a shape's replicas before anything is simulated.

From below, by what no schedule can beat: a device that prefills every prompt, or writes every answer in its largest
batch, is busy for so many seconds a query; and no answer comes sooner than its longest candidate decoding alone.
From above, by Little's law for the batch, processor sharing for the step and Erlang's C for the wait: a guess, which
only says where the search begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, floor, inf, log

import numpy as np

from octavo.profiles.ensemble import Lora
from octavo.profiles.errors import ConfigError
from octavo.profiles.fleet import Placement
from octavo.profiles.scenario import Scenario, Service
from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.fleet import ACTIVATIONS, weight_bytes
from octavo.simulator.latency.choose import choose
from octavo.simulator.latency.model import LatencyModel
from octavo.simulator.plan.demand import Demand
from octavo.simulator.plan.space import Point, Shape
from octavo.simulator.plan.trials import spared
from octavo.simulator.spare import silenced, victims

SURE = 0.85
"""Share of a lower bound that counts as certain; the rest is what draws and averages may be off."""
AMPLE = 4
"""Replicas beyond so many times the guess make no query faster."""


@dataclass(frozen=True)
class Bracket:
    """Fewest, likely and ample replicas per placement; `refused` says why the shape cannot do at all.

    `misses_by` is how many times a target even a lone query takes, or how many times the devices it takes where it is
    `short` of them.
    """

    shape: Shape
    low: tuple[int, ...] = ()
    guess: tuple[int, ...] = ()
    high: tuple[int, ...] = ()
    refused: str | None = None
    misses_by: float = inf
    short: bool = False

    @property
    def start(self) -> Point:
        return Point(self.shape, self.guess)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a placement cannot do, and by how many times it misses a target, where it does."""

    why: str
    misses_by: float = inf


@dataclass(frozen=True)
class Unit:
    """One replica set of a placement: who decodes there, how large its batches get, how long its steps take."""

    names: tuple[str, ...]
    lanes: int
    latency: LatencyModel
    rows: int
    batched: int

    @property
    def writing(self) -> int:
        """Lanes that write answers, which take turns."""
        return max(1, self.lanes - ("value" in self.names and self.lanes > 1))


@dataclass
class Brackets:
    """Brackets the shapes of one scenario; a placement that is in several shapes is looked at once."""

    scenario: Scenario
    asked: Demand
    most_devices: int
    _found: dict[str, tuple[int, int] | Refusal] = field(default_factory=dict)

    def of(self, shape: Shape) -> Bracket:
        """Nothing is simulated."""
        pairs = []
        for place in shape.placements:
            key = shape.alone(place).key
            if key not in self._found:
                self._found[key] = self._placement(shape, place)
            found = self._found[key]
            if isinstance(found, Refusal):
                return Bracket(shape, refused=found.why, misses_by=found.misses_by)
            pairs.append(found)
        most = tuple(max(1, self.most_devices // self.scenario.devices_of(place)) for place in shape.placements)
        high = tuple(min(AMPLE * guess + 2, top) for (_, guess), top in zip(pairs, most, strict=True))
        if any(low > top for (low, _), top in zip(pairs, high, strict=True)):
            least = sum(
                low * self.scenario.devices_of(place) for (low, _), place in zip(pairs, shape.placements, strict=True)
            )
            names = ", ".join(dict.fromkeys(place.hardware for place in shape.placements))
            why = f"to keep up takes at least {least} {names}, and there may be {self.most_devices} devices"
            return Bracket(shape, refused=why, misses_by=least / self.most_devices, short=True)
        guesses = tuple(min(guess, top) for (_, guess), top in zip(pairs, high, strict=True))
        return Bracket(shape, tuple(low for low, _ in pairs), guesses, high)

    def _placement(self, shape: Shape, place: Placement) -> tuple[int, int] | Refusal:
        """Fewest and likely replicas, or why there is none."""
        start = Point(shape, (1,) * len(shape.placements)).applied(self.scenario)
        try:
            units = _units(start, place, self.asked)
        except ConfigError as error:
            return Refusal(str(error))
        for targets in (start.targets, spared(start.targets)):
            if targets and (slow := _too_slow(targets, units, self.asked)):
                return Refusal(f"{place.hardware} x{place.devices}: {slow.why}", slow.misses_by)
        low = max(_fewest(start, unit, self.asked) for unit in units)
        most = max(low, self.most_devices // start.devices_of(place))
        likely = max(low, *(_likely(start, unit, self.asked, most) for unit in units))
        if start.targets.n_minus_1 is None:
            return low, likely
        # One of them is away. The last of an expert may be: then nobody waits for it.
        spare = low > 1 or not self._bears(start, place)
        return low + spare, min(likely + (spare or likely > 1), max(most, low + spare))

    def _bears(self, start: Scenario, place: Placement) -> bool:
        """Whether queries are answered without the only replica of each of its models."""
        away = [name for name in victims(start) if name in start.names_of(place)]
        return not any(silenced(start.without(name)) for name in away)


def _units(scenario: Scenario, place: Placement, asked: Demand) -> list[Unit]:
    """Sets of models that share a device; dedicated models are alike only in where they stand."""
    names = scenario.names_of(place)
    sets = [(name,) for name in names] if place.mode == "dedicated" else [names]
    kinds = {_kind(scenario, together, asked): together for together in reversed(sets)}
    return [_unit(scenario, place, together, asked) for together in reversed(kinds.values())]


def _kind(scenario: Scenario, names: tuple[str, ...], asked: Demand) -> tuple[object, ...]:
    """Sets that are alike in this need one look."""
    models = [scenario.model_of(name) for name in names]
    precisions = [scenario.precision_of(name) for name in names]
    return (*(m.name for m in models if m), *precisions, *(asked.candidates[name] for name in names), "value" in names)


def _unit(scenario: Scenario, place: Placement, names: tuple[str, ...], asked: Demand) -> Unit:
    engine, lora = scenario.engine, scenario.ensemble.adapters
    lanes = 1 if place.mode == "lora" else len(names)
    rank, adapters = (lora.rank, len(names)) if place.mode == "lora" and isinstance(lora, Lora) else (0, 0)
    model = scenario.model_of(names[0])
    assert model is not None
    memory = scenario.hardware_of(place).memory * place.devices * engine.memory_utilization * (1 - ACTIVATIONS)
    room = (memory - weight_bytes(scenario, place, names)) / lanes / place.pipeline_parallel
    tokens = (
        engine.kv_blocks * engine.block_size
        if engine.kv_blocks
        else room / model.kv_bytes_per_token(engine.kv_precision)
    )
    longest = float(np.max(asked.prompts)) + 1
    if room <= 0 or tokens < longest:
        raise ConfigError(f"{', '.join(names[:2])} and a prompt of {longest:.0f} tokens do not fit {place.hardware}")
    context = float(np.mean(asked.prompts)) / _share(names, asked) + float(np.mean(asked.answers))
    rows = max(1, min(engine.max_num_seqs, engine.max_num_batched_tokens, floor(tokens / context)))
    latency = choose(scenario, place, names[0], rank, adapters)
    return Unit(names, lanes, latency, rows, engine.max_num_batched_tokens)


def _share(names: tuple[str, ...], asked: Demand) -> float:
    """Candidates that share a prompt's keys and values."""
    return max((asked.candidates[name] for name in names), default=1) or 1


def _prefill(unit: Unit, tokens: float) -> float:
    """Seconds of computing so many prompt tokens, in chunks as large as they get."""
    chunk = unit.batched
    whole = Chunk(Prompt(0, chunk, ()), 0, chunk)
    one = unit.latency.mixed(0, 0, (Chunk(Prompt(0, 1, ()), 0, 1),))
    return max(0.0, unit.latency.mixed(0, 0, (whole,)) - one) * tokens / chunk


def _decode(unit: Unit, rows: int, asked: Demand) -> float:
    """Seconds of a decode step of so many rows at the mean context."""
    context = float(np.mean(asked.prompts) + np.mean(asked.answers) / 2)
    return unit.latency.decode(rows, round(rows * context)).seconds


def _work(unit: Unit, asked: Demand) -> tuple[float, float]:
    """Prompt tokens to compute and answer tokens to write on a unit, per query."""
    made = asked.candidates
    new = float(np.mean(np.maximum(asked.prompts - asked.shared, 1)))
    prompts = sum(new for name in unit.names if made[name])
    answers = float(np.sum(np.mean(asked.answers_of(unit.names), axis=0)))
    if "value" in unit.names and asked.judged:
        prompts += new + float(np.sum(np.mean(asked.answers, axis=0)))
    return prompts, answers


def _fewest(scenario: Scenario, unit: Unit, asked: Demand) -> int:
    """Replicas below which the queue grows, whatever the schedule: weights are read once for a whole batch, which by
    Little's law is no larger than what arrives within the latency target."""
    if asked.rate is None or not asked.certain:
        return 1
    prompts, answers = _work(unit, asked)
    prefilling = _prefill(unit, prompts)
    arriving = asked.rate * (scenario.targets.latency_p95 or inf) * max(asked.candidates.values())
    context = float(np.mean(asked.prompts))
    replicas = 1
    while replicas < 4096:
        rows = max(1, round(min(4.0 * unit.rows, 4096.0, arriving / replicas)))
        line = unit.latency.decode(rows, rows)
        seconds = max(prefilling, answers * line.seconds / rows) + answers * line.slope * context
        if SURE * asked.rate * seconds <= replicas:
            break
        replicas += 1
    return replicas


def _likely(scenario: Scenario, unit: Unit, asked: Demand, most: int) -> int:
    """The fewest replicas that should keep up, and answer nineteen of twenty queries in time."""
    if asked.rate is None:
        return 1
    replicas = 1
    while replicas < most and not _in_time(scenario, unit, asked, replicas):
        replicas = ceil(replicas * 1.25)
    return min(replicas, most)


def _in_time(scenario: Scenario, unit: Unit, asked: Demand, replicas: int) -> bool:
    """The wait by Erlang's C over all rows, and a batch whose size is what Little's law makes of its own speed."""
    assert asked.rate is not None
    rate = asked.rate / replicas
    prompts, answers = _work(unit, asked)
    prefilling = rate * _prefill(unit, prompts)
    if prefilling >= 0.95:
        return False
    step, rows = _settled(unit, asked, rate * answers / unit.writing, prefilling)
    if answers and rows >= unit.rows:
        return False
    columns = asked.answers_of(unit.names)
    longest = float(np.percentile(np.max(columns, axis=1), 95)) if columns.shape[1] else 0.0
    hold = max(step * float(np.mean(asked.answers)), 1e-9)
    written = max(1, columns.shape[1])
    wait = erlang_wait(unit.rows * unit.lanes * replicas, asked.rate * written * hold, hold)
    first = _prefill(unit, prompts) / (1 - prefilling) + wait
    targets = scenario.targets
    return first <= (targets.ttft_p95 or inf) and first + longest * step <= (targets.latency_p95 or inf)


def _settled(unit: Unit, asked: Demand, tokens_per_second: float, prefilling: float) -> tuple[float, float]:
    """Seconds between two tokens of a row, and rows per lane, where each follows from the other."""
    rows = 1.0
    for _ in range(40):
        step = _decode(unit, max(1, round(rows)), asked) * unit.writing / (1 - prefilling)
        after = min(tokens_per_second * step, float(unit.rows))
        if abs(after - rows) < 0.5:
            break
        rows = after
    return step, rows


def erlang_wait(servers: int, offered: float, hold: float, share: float = 0.95) -> float:
    """Seconds that this share of M/M/c customers wait at most (Erlang's C); infinite where the queue grows."""
    if offered >= servers:
        return inf
    if servers > 400 and offered < 0.9 * servers:
        return 0.0
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    waits = blocked / (1 - offered / servers * (1 - blocked))
    return 0.0 if waits <= 1 - share else log(waits / (1 - share)) * hold / (servers - offered)


def _too_slow(targets: Service, units: list[Unit], asked: Demand) -> Refusal | None:
    """Which target even a lone query misses."""
    if not asked.certain:
        return None
    steps = {name: SURE * unit.latency.decode(1, 1).seconds for unit in units for name in unit.names}
    columns = [asked.answers[:, i] * steps[name] for i, name in enumerate(asked.experts) if name in steps]
    if columns:
        alone = np.max(np.array(columns), axis=0)
        for percent, target in ((50, targets.latency_p50), (95, targets.latency_p95), (99, targets.latency_p99)):
            if target is not None and (seconds := float(np.percentile(alone, percent))) > target:
                why = f"a query alone takes {seconds:.3g} s (p{percent}) of decoding, wanted {target:g}"
                return Refusal(why, seconds / target)
        if targets.tpot_p95 is not None and max(steps.values()) > targets.tpot_p95:
            token = max(steps.values())
            why = f"a token alone takes {token:.3g} s, wanted tpot_p95 {targets.tpot_p95:g}"
            return Refusal(why, token / targets.tpot_p95)
    return None
