"""Step times of a machine, each that was measured, with its spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.profiles.latency import LatencyProfile, StepTime
from octavo.simulator.report.blocks import Figure, table
from octavo.simulator.report.figures.plot import COLOURS, SHAPES, axis, layout, log_scale, scale, trace, whiskers
from octavo.simulator.report.numbers import Cell, Number


def step_times(profile: LatencyProfile, name: str) -> Figure:
    """Milliseconds of a step against the tokens it computes, steps that only decode apart from those that prefill."""
    decodes = [step for step in profile.steps if not step.prefill_tokens]
    prefills = [step for step in profile.steps if step.prefill_tokens]
    kinds = [(title, steps) for title, steps in (("decode", decodes), ("prefill", prefills)) if steps]
    x, y = scale([_tokens(s) for s in profile.steps]), scale([1e3 * s.seconds for s in profile.steps])
    return Figure(
        name=f"steps-{name}",
        title=f"Time of a forward pass: {profile.name}",
        caption=(
            f"{profile.model} on {profile.hardware}: {profile.precision}, {profile.provider}, {profile.threads} "
            f"threads, {profile.measured_on}. Bars: half the interquartile range. Steps of equally many tokens differ "
            "in the context that they read."
        ),
        data=tuple(_cloud(title, steps, i) for i, (title, steps) in enumerate(kinds)),
        layout=layout(
            axis(f"tokens computed in the step{log_scale(x)}", **x),
            axis(f"time (ms{log_scale(y)})", **y),
            hovermode="closest",
        ),
        height=400,
        table=table(
            "Measured steps", ("kind", "rows", "context", "prefill tokens", "time"), [_row(s) for s in profile.steps]
        ),
    )


def _tokens(step: StepTime) -> int:
    return step.prefill_tokens + step.decodes


def _row(step: StepTime) -> tuple[Cell, ...]:
    counts = (Number(count) for count in (step.decodes, step.context, step.prefill_tokens))
    time = Number(step.seconds, "s", step.seconds - step.spread, step.seconds + step.spread)
    return "prefill" if step.prefill_tokens else "decode", *counts, time


def _cloud(title: str, steps: Sequence[StepTime], index: int) -> dict[str, Any]:
    y = [1e3 * s.seconds for s in steps]
    return trace(
        "scatter",
        title,
        mode="markers",
        x=[_tokens(s) for s in steps],
        y=y,
        text=[f"{s.decodes} rows, {s.context} context, {s.prefill_tokens} prefill, {s.samples} times" for s in steps],
        error_y=whiskers(y, [(1e3 * (s.seconds - s.spread), 1e3 * (s.seconds + s.spread)) for s in steps]),
        marker={"color": COLOURS[index], "symbol": SHAPES[index], "size": 7, "opacity": 0.85},
        hovertemplate="%{y:.3g} ms<br>%{text}<extra></extra>",
    )
