"""`measure`: step times of a bundle's models on this machine, and a load served in real time to check them by."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from octavo.profiles.errors import ConfigError
from octavo.profiles.latency import LatencyProfile, StepTime
from octavo.runtime.calibration import Calibration, Seen
from octavo.runtime.core.trace import InferenceRecord, QueryRecord, Record, to_lines
from octavo.runtime.energy import Watch, find_meter
from octavo.runtime.local import Octavo
from octavo.runtime.ort.providers import CPU
from octavo.runtime.profiled import profiled
from octavo.runtime.replay import Arrival, fitting, poisson, serve_load
from octavo.runtime.steps import Bench, grid, time_steps
from octavo.runtime.tasks import read_tasks

Progress = Callable[[str, float], None]
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
        return numbers_in_line(json.dumps(document, indent=2)) + "\n"


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
        lanes = octavo.placed.lanes
        meter = find_meter([lane.device for lane in lanes])
        idle, running = meter.idle_watts() if meter.counter else None, Watch(meter)
        bench = bench_of(octavo, seconds, seed)
        watts = running.watts()
        calibration = Calibration(octavo, texts, options) if texts else None
        wanted = rate or 1.0
        if calibration:
            progress("calibrating", 0.0)
            wanted = rate or calibration.rate(LOAD)
            calibration.serve_one(wanted)
            calibration.serve(wanted)
        coming = recorded or (poisson(texts, wanted, queries, seed) if texts else [])
        if len(recorded) > 1:
            span = recorded[-1].at - recorded[0].at
            wanted = (len(recorded) - 1) / span if span else inf
        trace = serve_load(octavo, coming, lambda share: progress("serving a load", share), **options) if coming else []
        if calibration:
            calibration.serve(wanted)
        profiles = profiled(octavo, bench, calibration.seen if calibration else Seen(), watts)
    each = None
    if watts is not None:
        each = joules({judge: bench.step_times(judge=judge) for judge in (False, True)}, watts / len(lanes))
    energy = Energy(meter.source, meter.reason, idle, watts, each)
    found = Measurement(profiles, trace, wanted, energy, len(arrivals or ()) - len(recorded))
    if out is not None:
        _write(out, found)
    return found


def bench_of(octavo: Octavo, seconds: float, seed: int) -> Bench:
    """The steps of all models over batch sizes and contexts, timed for about so long."""
    lanes, context, samples = octavo.placed.lanes, octavo.placed.context, octavo.ensemble.samples_per_expert
    limits = next(iter(lanes[0].engines.values())).limits
    cells = grid(context, limits.max_rows, samples, limits.max_step_tokens)
    shared = len(lanes) > 1 and octavo.provider == CPU and octavo.placed.threads == 1
    value = octavo.ensemble.value_model
    return time_steps(lanes, octavo.loop.contents, value, cells, seconds, seed, apart=shared)


def joules(steps: Mapping[bool, Sequence[StepTime]], watts: float) -> dict[str, float]:
    """Of the median step of each kind, on one device that takes `watts`."""
    kinds: dict[str, list[float]] = {}
    for judge, found in steps.items():
        for step in found:
            kind = "value" if judge else "decode" if not step.prefill_tokens else "mixed" if step.decodes else "prefill"
            kinds.setdefault(kind, []).append(step.seconds)
    return {kind: watts * median(seconds) for kind, seconds in kinds.items()}


def _write(out: Path, found: Measurement) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for earlier in out.glob("latency-*.json"):
            earlier.unlink()
        for profile in found.profiles:
            (out / f"latency-{slug(profile.hardware)}-{profile.kind}.json").write_text(
                numbers_in_line(profile.model_dump_json(indent=2)) + "\n"
            )
        if found.trace:
            (out / "trace.jsonl").write_text("".join(f"{line}\n" for line in to_lines(found.trace)))
        (out / "measure.json").write_text(found.to_json())
    except OSError as error:
        raise ConfigError(f"{out}: cannot write the measurement: {error.strerror}") from None


def numbers_in_line(text: str) -> str:
    """Indented JSON with the numbers of a list on one line."""
    return re.sub(r"\[[\d\s.,e-]+\]", lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text)


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
