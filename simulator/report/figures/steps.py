"""Step times of a machine: each that was measured, and what the simulator takes for the same step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.profiles.latency import LatencyProfile, StepTime
from octavo.simulator.latency.table import Table as Estimates
from octavo.simulator.report.blocks import Figure, table
from octavo.simulator.report.figures.plot import COLOURS, SHAPES, axis, layout, log_scale, scale, trace, whiskers
from octavo.simulator.report.numbers import Cell, Number, write


def step_times(profile: LatencyProfile, name: str) -> Figure:
    """Milliseconds of a step against the tokens it computes; steps that only decode apart from those that prefill."""
    estimates = _estimates(profile)
    x, y = scale([_tokens(s) for s in profile.steps]), scale([1e3 * s.seconds for s in profile.steps])
    tokens, time = axis(f"tokens computed in the step{log_scale(x)}", **x), axis(f"time (ms{log_scale(y)})", **y)
    threads = f"{profile.threads} thread{'s' * (profile.threads != 1)}"
    columns = ("kind", "rows", "context", "prefill tokens", "measured", "simulated", "error")
    return Figure(
        name=f"steps-{name}",
        title=f"Time of a forward pass: {profile.name}",
        caption=(
            f"{profile.model} on {profile.hardware}: {profile.precision}, {profile.provider}, {threads}, "
            f"{profile.measured_on}. Bars: half the interquartile range. Steps of equally many tokens differ in the "
            f"context that they read. {_errors(profile, estimates)}"
        ),
        data=_traces(profile, estimates),
        layout=layout(tokens, time, hovermode="closest"),
        height=420,
        table=table("Measured steps", columns, map(_row, profile.steps, estimates)),
    )


def _estimates(profile: LatencyProfile) -> list[float]:
    """What the simulator's table says of each measured step, without the overheads outside of it."""
    estimates = Estimates(profile)
    return [_estimate(estimates, step) for step in profile.steps]


def _estimate(estimates: Estimates, step: StepTime) -> float:
    decode = estimates.decode(step.decodes, step.context).seconds - estimates.fixed if step.decodes else 0.0
    if not step.prefill_tokens:
        return decode
    rows = max(step.prefill_rows, 1)
    each, past = step.prefill_tokens / rows, step.past / rows
    pairs = rows * (each * past + each * (each + 1) / 2)
    return decode + estimates.prefill(step.prefill_tokens, rows, pairs, step.past)


def _errors(profile: LatencyProfile, estimates: Sequence[float]) -> str:
    errors = [abs(took / step.seconds - 1) for took, step in zip(estimates, profile.steps, strict=True)]
    mean, worst = write(sum(errors) / len(errors), "share"), write(max(errors), "share")
    return f"What the simulator takes for these steps is off by {mean} on average, {worst} at worst."


def _traces(profile: LatencyProfile, estimates: Sequence[float]) -> tuple[dict[str, Any], ...]:
    decodes = [step for step in profile.steps if not step.prefill_tokens]
    prefills = [step for step in profile.steps if step.prefill_tokens]
    kinds = [(title, steps) for title, steps in (("decode", decodes), ("prefill", prefills)) if steps]
    return (*(_cloud(title, steps, i) for i, (title, steps) in enumerate(kinds)), _taken(profile, estimates))


def _tokens(step: StepTime) -> int:
    return step.prefill_tokens + step.decodes


def _row(step: StepTime, took: float) -> tuple[Cell, ...]:
    counts = (Number(count) for count in (step.decodes, step.context, step.prefill_tokens))
    time = Number(step.seconds, "s", step.seconds - step.spread, step.seconds + step.spread)
    kind = "prefill" if step.prefill_tokens else "decode"
    return kind, *counts, time, Number(took, "s"), Number(took / step.seconds - 1, "error")


def _cloud(title: str, steps: Sequence[StepTime], index: int) -> dict[str, Any]:
    y = [1e3 * s.seconds for s in steps]
    return trace(
        *("scatter", f"{title}, measured"),
        mode="markers",
        x=[_tokens(s) for s in steps],
        y=y,
        text=[f"{s.decodes} rows, {s.context} context, {s.prefill_tokens} prefill, {s.samples} times" for s in steps],
        error_y=whiskers(y, [(1e3 * (s.seconds - s.spread), 1e3 * (s.seconds + s.spread)) for s in steps]),
        marker={"color": COLOURS[index], "symbol": SHAPES[index], "size": 7, "opacity": 0.85},
        hovertemplate="%{y:.3g} ms<br>%{text}<extra></extra>",
    )


def _taken(profile: LatencyProfile, estimates: Sequence[float]) -> dict[str, Any]:
    return trace(
        *("scatter", "what the simulator takes"),
        mode="markers",
        x=[_tokens(step) for step in profile.steps],
        y=[1e3 * took for took in estimates],
        marker={"color": "var(--ink)", "symbol": "line-ew-open", "size": 13, "line": {"width": 1.3}},
        hovertemplate="simulated: %{y:.3g} ms<extra></extra>",
    )
