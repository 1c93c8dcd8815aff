"""`measure`: step times of a bundle's models on this machine, and a load served in real time to check them by."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from math import inf
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import psutil
from scipy.optimize import nnls

from octavo.profiles.errors import ConfigError
from octavo.profiles.latency import HostTimes, LatencyProfile, Parts, StepTime
from octavo.profiles.manifest import GraphEntry
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, to_lines
from octavo.runtime.energy import Watch, find_meter
from octavo.runtime.local import Octavo
from octavo.runtime.machine import machine
from octavo.runtime.ort.providers import CPU
from octavo.runtime.overheads import Calibration, Half, Halves, Overheads, Served, Share
from octavo.runtime.replay import Arrival, fitting, poisson, serve_load
from octavo.runtime.steps import grid, time_alone, time_steps
from octavo.runtime.tasks import read_tasks

Progress = Callable[[str, float], None]
ALONE = 0.3  # of the time for steps, in which the lanes run by themselves
LOAD = 0.3  # of what the machine does when many are asked at once, where no rate is given


@dataclass(frozen=True, slots=True)
class Energy:
    """Mean power, idle and while steps were timed; joules of the median step of a kind, at that power.

    All are None where nothing counts energy, and `reason` says why.
    """

    source: str | None
    reason: str | None
    idle_watts: float | None
    watts: float | None
    joules_per_step: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latency profiles, one for the decoders and one for the judge; the trace of the load that was served.

    `left_out` counts the recorded queries that were longer than the context.
    """

    profiles: list[LatencyProfile]
    trace: list[Record]
    rate: float
    energy: Energy
    left_out: int = 0

    def to_json(self) -> str:
        """The document that `octavo report` reads."""
        profiles = [json.loads(profile.model_dump_json()) for profile in self.profiles]
        energy = asdict(self.energy)
        document = {"kind": "measure", "rate": self.rate, "profiles": profiles, "energy": energy}
        document |= {"left_out": self.left_out} if self.left_out else {}
        return json.dumps(document, indent=2) + "\n"


def measure(
    bundle: Path,
    *,
    prompts: Path | None = None,
    arrivals: Sequence[Arrival] | None = None,
    rate: float | None = None,
    queries: int = 600,
    seconds: float = 20.0,
    max_new_tokens: int | None = None,
    policy: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    progress: Progress = lambda stage, share: None,
    **load: Any,
) -> Measurement:
    """Time prefill, decode and value steps over batch sizes and contexts, then serve a load and record it.

    The steps are timed for about `seconds`, on all devices at once and with the models of a device in turn, as the loop
    runs them. The load is those `arrivals` that fit the context, or `queries` prompts of the task file `prompts`
    arriving at random, `rate` a second (None: 0.3 of what the machine can do); without either, none is served. `load`
    goes to `Octavo.load`. With `out`, a folder, it writes latency-HARDWARE-decoder.json and -judge.json in place of
    earlier ones, measure.json and trace.jsonl.

    Raises ConfigError, BundleError or MachineError.
    """
    options: dict[str, Any] = {"seed": seed, "max_new_tokens": max_new_tokens, "policy": policy}
    texts = [task.prompt for task in read_tasks(prompts)] if prompts else []
    with Octavo.load(bundle, keep_records=True, **load) as octavo:
        recorded = fitting(arrivals, octavo.placed.context) if arrivals else []
        progress("step times", 0.0)
        limits = next(iter(octavo.placed.lanes[0].engines.values())).limits
        cells = grid(octavo.placed.context, limits.max_rows, octavo.ensemble.samples_per_expert, limits.max_step_tokens)
        lanes, value = octavo.placed.lanes, octavo.ensemble.value_model
        meter = find_meter([lane.device for lane in lanes])
        idle, running = meter.idle_watts() if meter.counter else None, Watch(meter)
        shared = len(lanes) > 1 and octavo.provider == CPU and octavo.placed.threads == 1
        times = time_steps(lanes, octavo.loop.contents, value, cells, seconds * (1 - ALONE * shared), seed)
        watts = running.watts()
        alone = time_alone(lanes, octavo.loop.contents, value, cells, seconds * ALONE, seed) if shared else None
        steps = {judge: times.step_times(judge=judge, alone=alone) for judge in (False, True)}
        fits = {judge: fitted(found) for judge, found in steps.items() if found}
        wanted = rate or 1.0
        bench = {judge: fit.seconds for judge, fit in fits.items()}
        split = {judge: halves(found) for judge, found in steps.items() if any(step.alone for step in found)}
        calibration = Calibration(octavo, texts, bench, options, split) if texts else None
        if calibration:
            progress("calibrating", 0.0)
            wanted = rate or calibration.rate(LOAD)
            calibration.serve(wanted)
        coming = recorded or (poisson(texts, wanted, queries, seed) if texts else [])
        if len(recorded) > 1:
            span = recorded[-1].at - recorded[0].at
            wanted = (len(recorded) - 1) / span if span else inf
        trace = serve_load(octavo, coming, lambda share: progress("serving a load", share), **options) if coming else []
        if calibration:
            calibration.serve(wanted)
        beside = calibration.overheads() if calibration else Overheads()
        profiles = [_profile(octavo, judge, steps[judge], beside, watts) for judge in fits]
    each = None if watts is None else joules(steps, watts / len(lanes))
    energy = Energy(meter.source, meter.reason, idle, watts, each)
    found = Measurement(profiles, trace, wanted, energy, len(arrivals or ()) - len(recorded))
    if out is not None:
        _write(out, found)
    return found


def joules(steps: Mapping[bool, Sequence[StepTime]], watts: float) -> dict[str, float]:
    """Of the median step of each kind, on one device that takes `watts`."""
    kinds: dict[str, list[float]] = {}
    for judge, found in steps.items():
        for step in found:
            kind = "value" if judge else "decode" if not step.prefill_tokens else "mixed" if step.decodes else "prefill"
            kinds.setdefault(kind, []).append(step.seconds)
    return {kind: watts * median(seconds) for kind, seconds in kinds.items()}


@dataclass(frozen=True, slots=True)
class Fit:
    """Seconds of a step as a line in what it does; no coefficient is negative."""

    coefficients: dict[str, float]
    residuals: dict[str, float]

    def seconds(self, decodes: int, context: int, prefill_tokens: int, prefill_rows: int) -> float:
        values = _features(decodes, context, prefill_tokens, prefill_rows)
        return float(np.dot(values, list(self.coefficients.values())))


PARTS = ("computing", "hosting")
FEATURES = ("step", "decoding row", "context token", "prefill", "prefill token", "prefill row")


def _features(decodes: int, context: int, prefill_tokens: int, prefill_rows: int) -> tuple[float, ...]:
    return 1.0, decodes, context, float(prefill_rows > 0), prefill_tokens, prefill_rows


def fitted(steps: Sequence[StepTime]) -> Fit:
    """Least squares of the relative error; residuals are relative."""
    seconds = np.array([step.seconds for step in steps])
    matrix = np.array([_features(s.decodes, s.context, s.prefill_tokens, s.prefill_rows) for s in steps])
    scale = np.maximum(matrix.max(axis=0), 1e-30)
    found = nnls(matrix / scale / seconds[:, None], np.ones(len(steps)))[0] / scale
    errors = np.abs(matrix @ found / seconds - 1)
    residuals = {"mape": errors.mean(), "p90": np.percentile(errors, 90), "worst": errors.max()}
    return Fit(
        dict(zip(FEATURES, map(float, found), strict=True)), {key: float(value) for key, value in residuals.items()}
    )


def _profile(
    octavo: Octavo, judge: bool, bench: list[StepTime], beside: Overheads, watts: float | None
) -> LatencyProfile:
    manifest = octavo.manifest
    entry = manifest.value if judge and manifest.value else manifest.experts[0]
    graph: GraphEntry = manifest.graph(entry.weights[0].graph)
    files = {each.path: each.size for each in manifest.files}
    about = machine() | octavo.about
    steps = [_in_service(step, beside, judge) for step in bench]
    fit = fitted(steps)
    results = [share.per_result for (of_judge, *_), share in beside.shares.items() if of_judge == judge]
    host = HostTimes(arrival=beside.per_arrival, result=results[0]) if results else None
    return LatencyProfile(
        name=f"{manifest.name}-{'judge' if judge else 'decoder'}",
        model=entry.name,
        kind="judge" if judge else "decoder",
        hardware=about["processor"],
        provider=octavo.provider,
        precision=graph.precision,
        threads=octavo.placed.threads,
        concurrent=len(octavo.placed.lanes),
        measured_on=date.today().isoformat(),
        machine=about,
        steps=steps,
        inference_overhead=beside.per_inference,
        query_overhead=beside.per_query,
        host=host,
        weight_bytes=sum(files[path] for path in set(entry.weights[0].locations.values())),
        kv_bytes_per_token=graph.kv.bytes_per_token if graph.kv else 0,
        kv_precision=graph.kv.precision if graph.kv else None,
        peak_memory_bytes=psutil.Process().memory_info().rss,
        watts=watts,
        coefficients=fit.coefficients,
        residuals=fit.residuals,
    )


def halves(steps: Sequence[StepTime]) -> Halves:
    """What a step computes and hosts on the bench, alone and beside others; decodes, prefills and both apart."""

    def half(side: str) -> Half:
        lines = {sort: [_line(found, side, part) for part in PARTS] for sort, found in sorts.items()}
        usual = [_line([step for step in steps if step.alone], side, part) for part in PARTS]

        def seconds(*sizes: int) -> tuple[float, float]:
            computing, hosting = lines.get((sizes[0] > 0, sizes[3] > 0), usual)
            return computing.seconds(*sizes), hosting.seconds(*sizes)

        return seconds

    sorts: dict[tuple[bool, bool], list[StepTime]] = {}
    for step in steps:
        if step.alone:
            sorts.setdefault((step.decodes > 0, step.prefill_rows > 0), []).append(step)
    return half("alone"), half("beside")


def _line(steps: Sequence[StepTime], side: str, part: str) -> Fit:
    return fitted([step.model_copy(update={"seconds": getattr(getattr(step, side), part)}) for step in steps])


def _in_service(step: StepTime, beside: Overheads, judge: bool) -> StepTime:
    """The step as a served load takes it."""
    decodes, prefills = step.decodes > 0, step.prefill_rows > 0
    served = beside.steps.get((judge, prefills), Served())
    share = beside.shares.get((judge, decodes, prefills), Share())
    parts = {
        side: Parts(computing=share.computing * found.computing, hosting=max(1e-9, share.hosting * found.hosting))
        for side in ("alone", "beside")
        if (found := getattr(step, side)) is not None
    }
    return step.model_copy(update={"seconds": served.constant + served.factor * step.seconds, **parts})


def _write(out: Path, found: Measurement) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for earlier in out.glob("latency-*.json"):
            earlier.unlink()
        for profile in found.profiles:
            (out / f"latency-{slug(profile.hardware)}-{profile.kind}.json").write_text(
                profile.model_dump_json(indent=2) + "\n"
            )
        if found.trace:
            (out / "trace.jsonl").write_text("".join(f"{line}\n" for line in to_lines(found.trace)))
        (out / "measure.json").write_text(found.to_json())
    except OSError as error:
        raise ConfigError(f"{out}: cannot write the measurement: {error.strerror}") from None


def slug(name: str) -> str:
    """A name as a part of a file's: amd-epyc-7763."""
    return "-".join(re.findall(r"[a-z0-9.]+", name.lower().replace("(r)", "").replace("(tm)", ""))) or "machine"


def summary(trace: Sequence[Record]) -> dict[str, float]:
    """Medians and tails of a trace's answered queries, in seconds, and tokens per second of all candidates."""
    queries = [r for r in trace if isinstance(r, QueryRecord) and r.latency is not None and r.outcome == "answered"]
    if not queries:
        return {}
    latencies = [query.latency or 0.0 for query in queries]
    first = [query.ttft for query in queries if query.ttft is not None]
    tokens = sum(r.new_tokens for r in trace if isinstance(r, InferenceRecord))
    wall = max(q.ended or 0.0 for q in queries) - min(q.arrival for q in queries)
    return {
        "queries": float(len(queries)),
        "latency_p50": median(latencies),
        "latency_p95": float(np.percentile(latencies, 95)),
        "latency_mean": mean(latencies),
        "ttft_p50": median(first) if first else 0.0,
        "ttft_p95": float(np.percentile(first, 95)) if first else 0.0,
        "tokens_per_second": tokens / max(wall, 1e-9),
    }
