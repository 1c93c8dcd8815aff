"""Simulates the load that a trace recorded: its arrivals, lengths, scores and devices, with measured step times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from statistics import mean

from octavo.profiles.errors import ConfigError
from octavo.profiles.latency import LatencyProfile
from octavo.runtime.core.policies import policy_named
from octavo.runtime.core.query import Candidate, Ensemble, Inference, Query, Score
from octavo.runtime.core.scheduler import Limits
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, RunRecord, StepRecord
from octavo.simulator.arrivals import Open
from octavo.simulator.device import Device
from octavo.simulator.host import Host, Split
from octavo.simulator.lane import Lane
from octavo.simulator.latency.model import LatencyModel, leap_seconds
from octavo.simulator.latency.table import Table
from octavo.simulator.pace import Course, Seed
from octavo.simulator.station import Berth, Station
from octavo.simulator.truth import left_to_write
from octavo.simulator.world import Ask, World

Key = tuple[int, str, int]


@dataclass(slots=True)
class Remembered:
    """What the trace says of each candidate; a withdrawn one is taken to be as long as its model's others."""

    totals: dict[Key, int] = field(default_factory=dict)
    values: dict[tuple[Key, bool], float] = field(default_factory=dict)
    heads: dict[Key, float] = field(default_factory=dict)
    logprobs: dict[Key, float] = field(default_factory=dict)
    answers: dict[Key, str | None] = field(default_factory=dict)
    right: dict[Key, bool | None] = field(default_factory=dict)

    def length(self, inference: Inference) -> int:
        return left_to_write(self.totals.get(_key(inference), inference.budget), inference)

    def result(self, inference: Inference, new_tokens: int) -> Candidate | Score:
        if inference.judges:
            judged = inference.judges.inference
            again = judged.continues is not None
            return Score(inference.judges, self.values.get((_key(judged), again), 0.0), inference)
        key = _key(inference)
        before = inference.continues.total_tokens if inference.continues else 0
        whole = before + new_tokens >= min(self.totals.get(key, 0), inference.query.max_new_tokens)
        return Candidate(
            inference, new_tokens, self.logprobs.get(key, 0.0), self.answers.get(key), self.heads.get(key), whole
        )

    def correct(self, candidate: Candidate) -> bool | None:
        return self.right.get(_key(candidate.inference))

    def seconds_to_verify(self, inference: Inference) -> float | None:
        return None


def _key(inference: Inference) -> Key:
    return inference.query.id, inference.model, inference.sample


def remember(records: Sequence[InferenceRecord], value_model: str | None) -> Remembered:
    """The truth that a trace holds."""
    truth = Remembered()
    finished: dict[str, list[int]] = defaultdict(list)
    cut: dict[Key, int] = {}
    for record in sorted(records, key=lambda r: r.submitted):
        key = record.query, record.model, record.sample
        if record.judge:
            continue
        truth.totals[key] = truth.totals.get(key, 0) + record.new_tokens
        truth.logprobs[key] = record.mean_logprob or 0.0
        truth.answers[key], truth.right[key] = record.answer, record.correct
        if record.value is not None and value_model is None:
            truth.heads[key] = record.value
        if record.end == "finished":
            finished[record.model].append(truth.totals[key])
        else:
            cut[key] = truth.totals[key]
    for key, written in cut.items():
        usual = round(mean(finished[key[1]])) if finished[key[1]] else written + 1
        truth.totals[key] = max(written + 1, usual)
    _match_judges(truth, records)
    return truth


def _match_judges(truth: Remembered, records: Sequence[InferenceRecord]) -> None:
    """Whose each score is: a judge's record says it. One that does not was asked when the candidate had ended."""
    ended: dict[tuple[int, int], list[InferenceRecord]] = defaultdict(list)
    for record in records:
        if not record.judge and record.end == "finished":
            ended[record.query, record.sample].append(record)
    judges = sorted((r for r in records if r.judge and r.value is not None), key=lambda r: r.submitted)
    seen: set[Key] = set()
    for judge in judges:
        model = judge.judges or _judged(judge, ended[judge.query, judge.sample])
        if model is None:
            continue
        key = judge.query, model, judge.sample
        truth.values[key, key in seen] = judge.value or 0.0
        seen.add(key)


def _judged(judge: InferenceRecord, open_: list[InferenceRecord]) -> str | None:
    """The model of the candidate that ended when the judge was asked; it leaves `open_`."""
    if not open_:
        return None
    match = min(open_, key=lambda r: (abs((r.ended or 0.0) - judge.submitted), _unlike(r, judge)))
    open_.remove(match)
    return match.model


def _unlike(candidate: InferenceRecord, judge: InferenceRecord) -> int:
    """A judge reads the prompt and the candidate, so its prompt is as long as both."""
    return abs(judge.prompt_tokens - candidate.prompt_tokens - candidate.new_tokens)


def replay(
    records: Iterable[Record],
    profiles: Sequence[LatencyProfile],
    header: RunRecord | None = None,
    seed: int | None = 0,
) -> list[Record]:
    """The simulated trace of a measured load. `header` is that of the trace, where the trace does not begin with it.

    Where the profiles know how the machine's pace swung, it swings by that `seed`; with None, as it did then.
    Raises ConfigError when the trace does not say how it was run, or when no profile is of one of its models.
    """
    kept = list(records)
    run = header or next((record for record in kept if isinstance(record, RunRecord)), None)
    if run is None:
        raise ConfigError("trace: it has no `run` record that says which policy and devices it was run with")
    queries = sorted((r for r in kept if isinstance(r, QueryRecord)), key=lambda r: r.arrival)
    if not queries:
        raise ConfigError("trace: it has no queries")
    inferences = [r for r in kept if isinstance(r, InferenceRecord)]
    truth = remember(inferences, run.value_model)
    steps: list[StepRecord] = []
    host = host_of(run, profiles, sum(not r.judge for r in inferences) / len(queries), seed)
    overhead = max(profile.inference_overhead for profile in profiles)
    world = World(
        Open([Ask(r.arrival, _query(r)) for r in queries]),
        Ensemble(tuple(run.experts), run.samples_per_expert, run.value_model, run.min_candidates),
        policy_named(run.policy, **run.settings),
        stations(run, profiles, truth, steps, host, seed),
        truth,
        deadline=run.deadline,
        overhead=host.post if host else overhead,
        closing=max(profile.query_overhead for profile in profiles),
        host=host,
    )
    world.run()
    found = {each.name: getattr(run, each.name) for each in fields(run)} | {"source": "simulated"}
    mean_pace, slowest = pace(kept, run, profiles)
    found["machine"] = {**run.machine, "pace": f"{mean_pace:.3f}", "pace_p95": f"{slowest:.3f}"}
    return [RunRecord(**found), *world.queries, *world.inferences, *steps]


def pace(records: Sequence[Record], run: RunRecord, profiles: Sequence[LatencyProfile]) -> tuple[float, float]:
    """Seconds that the decode steps of the trace took over what the profiles say of them: of all, and the 95th of 100.

    Far from one, the machine was not the same while it served as while it was measured: something else ran on it.
    """
    steps = [r for r in records if isinstance(r, StepRecord) and r.decodes and not r.prefill_tokens]
    if not steps:
        return 1.0, 1.0
    latency = _latency(run.experts[0], run, profiles)
    expected = [leap_seconds(latency, r.decodes, r.context, r.repeats) for r in steps]
    ratios = sorted(r.seconds / said for r, said in zip(steps, expected, strict=True))
    return sum(r.seconds for r in steps) / sum(expected), ratios[int(0.95 * len(ratios))]


def _query(record: QueryRecord) -> Query:
    return Query(record.query, record.prompt_tokens, max(record.max_new_tokens, 1), tuple(record.prefix))


def host_of(run: RunRecord, profiles: Sequence[LatencyProfile], inferences: float, seed: int | None = 0) -> Host | None:
    """What the lanes of a process share; None for one lane, or where a profile does not say."""
    found = {model: _profile(model, run, profiles) for models in run.devices.values() for model in models}
    splits, times = {}, {}
    for model, profile in found.items():
        alone, beside = Split.of(profile, "alone"), Split.of(profile, "beside")
        if alone is None or beside is None or profile.host is None:
            return None
        splits[model], times[model] = (alone, beside), profile.host
    return Host(splits, times, times[run.experts[0]], inferences, seed or 0) if len(run.devices) > 1 else None


def stations(
    run: RunRecord,
    profiles: Sequence[LatencyProfile],
    truth: Remembered,
    steps: list[StepRecord],
    host: Host | None = None,
    seed: Seed = 0,
) -> dict[str, Station]:
    """The devices that the run had, each model with its own limits and the step times of its kind."""
    found: dict[str, Station] = {}
    measured = _profile(run.experts[0], run, profiles).pace
    course = Course(measured, seed) if measured else None
    for number, (name, models) in enumerate(run.devices.items()):
        lanes = []
        for model in models:
            limits = Limits(**run.limits[model])  # type: ignore[arg-type]
            lanes.append(Lane(model, (model,), limits, _latency(model, run, profiles), truth))
        device = Device(name, lanes, steps=steps, host=host, pace=course.of(number) if course else None)
        for lane in lanes:
            found[lane.name] = Station(lane.name, "", [Berth(device, lane)])
    return found


def _latency(model: str, run: RunRecord, profiles: Sequence[LatencyProfile]) -> LatencyModel:
    return Table(_profile(model, run, profiles))


def _profile(model: str, run: RunRecord, profiles: Sequence[LatencyProfile]) -> LatencyProfile:
    """The profile of that name, or of its kind; among several, the one measured with as many devices busy."""
    kind = "judge" if model == run.value_model else "decoder"
    named = [p for p in profiles if model in (p.model, p.name)]
    fitting = named or [p for p in profiles if p.kind == kind]
    if not fitting:
        raise ConfigError(f"no latency profile of kind {kind} for {model}; there are {[p.name for p in profiles]}")
    return min(fitting, key=lambda p: abs(p.concurrent - len(run.devices)))
