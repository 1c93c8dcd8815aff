"""Latency profiles from what was timed: step times as a served load takes them, and how the machine's pace swung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import mean

import numpy as np
import psutil
from scipy.optimize import nnls

from octavo.profiles.latency import HostTimes, LatencyProfile, Pace, Pair, Parts, StepTime
from octavo.profiles.manifest import GraphEntry
from octavo.runtime.calibration import Logged, Seen
from octavo.runtime.local import Octavo
from octavo.runtime.machine import machine
from octavo.runtime.overheads import Half, Halves, Overheads, Predict, Served, Share, courses, overheads, spreads
from octavo.runtime.pace import Floats, swings
from octavo.runtime.steps import Bench


@dataclass(frozen=True, slots=True)
class Usual:
    """What steps usually take, on the bench and in served loads; by whether a judge takes them."""

    steps: Mapping[bool, list[StepTime]]
    bench: Mapping[bool, Predict]
    halves: Mapping[bool, Halves]
    beside: Overheads
    spreads: Mapping[tuple[bool, bool], list[Pair]]
    opened: float

    @staticmethod
    def of(bench: Bench, seen: Seen) -> Usual:
        steps = {judge: times for judge in (False, True) if (times := bench.step_times(judge=judge))}
        fits = {judge: fitted(times).seconds for judge, times in steps.items()}
        split = {judge: halves(times) for judge, times in steps.items() if any(step.alone for step in times)}
        beside = overheads(seen, fits, split)
        opened = [seconds for size, seconds in seen.openings if size == max(seen.openings)[0]]
        return Usual(steps, fits, split, beside, spreads(seen, beside, split), mean(opened) if opened else 0.0)

    def courses(self, loads: Sequence[Sequence[Sequence[Logged]]]) -> tuple[list[Floats], float]:
        """The pace of the lanes while loads were served, and the seconds of a moment."""
        return courses(loads, self.beside, self.bench, self.halves)


def profiled(octavo: Octavo, bench: Bench, seen: Seen, watts: float | None = None) -> list[LatencyProfile]:
    """The profile of the decoders and that of the judge, from what was timed on the bench and in served loads."""
    usual = Usual.of(bench, seen)
    pace = swings(*usual.courses(seen.loads))
    return [_profile(octavo, judge, usual, pace, watts) for judge in usual.steps]


def _profile(octavo: Octavo, judge: bool, usual: Usual, pace: Pace | None, watts: float | None) -> LatencyProfile:
    manifest, beside = octavo.manifest, usual.beside
    entry = manifest.value if judge and manifest.value else manifest.experts[0]
    graph: GraphEntry = manifest.graph(entry.weights[0].graph)
    files = {each.path: each.size for each in manifest.files}
    about = machine() | octavo.about
    steps = [_in_service(step, beside, judge) for step in usual.steps[judge]]
    fit = fitted(steps)
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
        host=_host(usual, judge),
        pace=pace,
        weight_bytes=sum(files[path] for path in set(entry.weights[0].locations.values())),
        kv_bytes_per_token=graph.kv.bytes_per_token if graph.kv else 0,
        kv_precision=graph.kv.precision if graph.kv else None,
        peak_memory_bytes=psutil.Process().memory_info().rss,
        watts=watts,
        coefficients=fit.coefficients,
        residuals=fit.residuals,
    )


def _host(usual: Usual, judge: bool) -> HostTimes | None:
    """None where lanes share nothing."""
    beside = usual.beside
    own = {sort: share for sort, share in beside.shares.items() if sort[0] == judge}
    if not own:
        return None
    first, decodes = next(iter(own.values())), own.get((judge, True, False), Share())
    return HostTimes(
        arrival=beside.opening[0],
        start=beside.opening[1],
        post=max(0.0, beside.per_inference - usual.opened),
        result=first.per_result,
        rest=first.rest,
        again=decodes.again,
        handover=beside.handover,
        decodes=usual.spreads.get((judge, False), []),
        prefills=usual.spreads.get((judge, True), []),
    )


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
