"""USD per query of each line, stacked by what it is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.simulator.report.blocks import Figure, table
from octavo.simulator.report.document import Line, Simulation
from octavo.simulator.report.figures.plot import COLOURS, PATTERNS, axis, layout, trace, wrap
from octavo.simulator.report.numbers import Cell, Number, write


def costs(simulation: Simulation, name: str) -> Figure | None:
    lines = [line for line in simulation.steady if _total(line) > 0]
    parts = list(dict.fromkeys(part for line in lines for part, usd in _parts(line).items() if usd > 0))
    if not parts:
        return None
    xaxis = axis("USD per query, simulated", tickprefix="$", rangemode="tozero")
    yaxis = axis("", autorange="reversed", showgrid=False, ticks="")
    return Figure(
        name=f"cost-{name}",
        title=f"What a query's dollars pay for: {simulation.name}",
        caption=_caption(lines[0]),
        data=tuple(_bar(part, lines, i) for i, part in enumerate(parts)),
        layout=layout(xaxis, yaxis, barmode="stack", bargap=0.35),
        height=140 + 48 * len(lines),
        table=table("Cost per query", ("", *parts, "in all"), [_row(line, parts) for line in lines]),
    )


def _total(line: Line) -> float:
    return sum(line.costs.values())


def _parts(line: Line) -> dict[str, float]:
    """USD per query by what is paid for; devices of one kind by whether they were at work."""
    devices, busy = line.costs.get("devices"), line.metrics.get("utilisation")
    if devices is None or busy is None or "," in line.devices:
        return dict(line.costs)
    rest = {part: usd for part, usd in line.costs.items() if part != "devices"}
    return {"devices at work": busy.value * devices, "devices idle": (1 - busy.value) * devices, **rest}


def _caption(line: Line) -> str:
    parts = _parts(line)
    most = max(parts, key=lambda part: parts[part])
    share = write(parts[most] / _total(line), "share")
    return (
        "USD per query by what it is paid for. A device is paid for whether it works or not; at work means that a step "
        f"runs, however small its batch. The largest part of {line.key} is {most}: {share}."
    )


def _row(line: Line, names: Sequence[str]) -> tuple[Cell, ...]:
    parts = _parts(line)
    return line.key, *(Number(parts.get(name, 0.0), "USD") for name in names), Number(_total(line), "USD")


def _bar(part: str, lines: Sequence[Line], index: int) -> dict[str, Any]:
    pattern = {
        "shape": PATTERNS[index % 8],
        "size": 5,
        "solidity": 0.2,
        "fgcolor": "var(--paper)",
        "fillmode": "overlay",
    }
    edge = {"color": "var(--paper)", "width": 1}
    return trace(
        "bar",
        part,
        orientation="h",
        x=[_parts(line).get(part, 0.0) for line in lines],
        y=[wrap(line.key) for line in lines],
        marker={"color": COLOURS[index % 8], "pattern": pattern, "line": edge},
        hovertemplate="%{fullData.name}: $%{x:.3g}<extra></extra>",
    )
