"""A plan's figures: the fleets that no other beats, and what moves the cost of the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.simulator.report.blocks import Figure, table
from octavo.simulator.report.document import Planned, Swing, Undominated
from octavo.simulator.report.figures.plot import COLOURS, PATTERNS, SHAPES, axis, layout, log_scale, scale, trace, wrap
from octavo.simulator.report.numbers import Number, write


def undominated(plan: Planned, name: str) -> Figure | None:
    """Latency against cost; what shares a mark shares a policy, and so an accuracy."""
    lines = list(dict.fromkeys(choice.line for choice in plan.pareto))
    if not lines:
        return None
    here = _at(plan) or ()
    x = scale([*(c.usd_per_query for c in plan.pareto), *here[:1]], prefix="$", padded=True)
    y = scale([*(c.latency_p95 for c in plan.pareto), *here[1:]])
    return Figure(
        f"pareto-{name}",
        f"Fleets that no other beats: {plan.name}",
        "Each mark is a fleet that keeps up with the traffic, whether or not within the targets; no other is as often "
        "right, as cheap and as fast. Accuracy is the same for all fleets of a line, and stands beside its name. The "
        "ring is the plan: the cheapest that meets the targets as the scenario answers.",
        (*(_fleets(line, [c for c in plan.pareto if c.line == line], i) for i, line in enumerate(lines)), *_ring(plan)),
        layout(
            axis(f"USD per query{log_scale(x)}", **x),
            axis(f"latency p95 (s{log_scale(y)})", **y),
            hovermode="closest",
        ),
        400,
        table(
            "Fleets that no other beats",
            ("fleet", "line", "right", "per query", "latency p95"),
            [
                (
                    c.fleet,
                    c.line,
                    Number(c.accuracy, "share"),
                    Number(c.usd_per_query, "USD"),
                    Number(c.latency_p95, "s"),
                )
                for c in plan.pareto
            ],
        ),
    )


def _fleets(line: str, choices: Sequence[Undominated], index: int) -> dict[str, Any]:
    return trace(
        *("scatter", f"{line}, {write(choices[0].accuracy, 'share')} right"),
        mode="markers",
        showlegend=True,
        x=[c.usd_per_query for c in choices],
        y=[c.latency_p95 for c in choices],
        text=[c.fleet for c in choices],
        marker={"color": COLOURS[index % 8], "symbol": SHAPES[index % 8], "size": 11},
        hovertemplate="<b>%{text}</b><br>$%{x:.3g} a query, p95 %{y:.3g} s<extra></extra>",
    )


def _at(plan: Planned) -> tuple[float, float] | None:
    """The plan's cost per query and latency, where both are known."""
    cost, latency = plan.plan.metrics.get("usd_per_query"), plan.plan.metrics.get("latency_p95")
    return (cost.value, latency.value) if cost and latency else None


def _ring(plan: Planned) -> list[dict[str, Any]]:
    if (here := _at(plan)) is None:
        return []
    right = plan.plan.metrics.get("accuracy")
    said = f", {write(right.value, 'share')} right" if right else ""
    mark = {"color": "var(--ink)", "symbol": "circle-open", "size": 16, "line": {"width": 2}}
    shown = {"text": [plan.plan.fleet], "hovertemplate": "<b>%{text}</b><br>$%{x:.3g} a query, p95 %{y:.3g} s"}
    name = f"the plan, {plan.name}{said}"
    return [trace("scatter", name, mode="markers", showlegend=True, x=here[:1], y=here[1:], marker=mark, **shown)]


def tornado(plan: Planned, name: str) -> Figure | None:
    """The inputs that move the cost most, from the top; without an end, no count of the devices is enough."""
    swings = plan.sensitivity
    if not swings:
        return None
    ends = (
        ("20 % less of it", [s.usd_per_hour_less for s in swings]),
        ("20 % more", [s.usd_per_hour_more for s in swings]),
    )
    now = plan.plan.usd_per_hour
    here = {"type": "line", "xref": "x", "yref": "paper", "x0": now, "x1": now, "y0": 0, "y1": 1}
    return Figure(
        f"tornado-{name}",
        f"What moves the cost: {plan.name}",
        f"USD per hour of enough of the same devices where one input is 20 % smaller, or larger. The line is the "
        f"plan, {write(now, 'USD')} an hour. Where a bar is missing, no count of them is enough, or nothing changes.",
        tuple(_bars(said, swings, values, now, i) for i, (said, values) in enumerate(ends)),
        layout(
            axis("USD per hour", tickprefix="$"),
            axis("", autorange="reversed", showgrid=False, ticks=""),
            barmode="overlay",
            bargap=0.35,
            shapes=[{**here, "line": {"color": "var(--ink)", "width": 1.3}}],
        ),
        140 + 34 * len(swings),
        table("Cost per hour where an input changes", ("input", "20 % less", "20 % more"), map(_row, swings)),
    )


def _bars(said: str, swings: Sequence[Swing], values: Sequence[float | None], now: float, index: int) -> dict[str, Any]:
    """From the plan's cost to what it becomes."""
    pattern = {"shape": PATTERNS[index], "size": 5, "solidity": 0.2, "fgcolor": "var(--paper)", "fillmode": "overlay"}
    return trace(
        *("bar", said),
        orientation="h",
        base=now,
        x=[0.0 if value is None else value - now for value in values],
        y=[wrap(swing.input) for swing in swings],
        text=["no fleet" if value is None else write(value, "USD") for value in values],
        textposition="none",
        marker={"color": COLOURS[index], "pattern": pattern},
        hovertemplate="%{y}, %{fullData.name}: %{text} an hour<extra></extra>",
    )


def _row(swing: Swing) -> tuple[str, Number | str, Number | str]:
    less, more = (
        "no fleet" if v is None else Number(v, "USD") for v in (swing.usd_per_hour_less, swing.usd_per_hour_more)
    )
    return swing.input, less, more
