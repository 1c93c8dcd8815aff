"""USD per query of each line, stacked by what it is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.simulator.report.blocks import Figure, table
from octavo.simulator.report.document import Line, Simulation
from octavo.simulator.report.figures.plot import COLOURS, PATTERNS, axis, layout, trace, wrap
from octavo.simulator.report.numbers import Cell, Number, write


def costs(simulation: Simulation, name: str) -> Figure | None:
    lines = [line for line in simulation.lines if _total(line) > 0]
    parts = list(dict.fromkeys(part for line in lines for part, usd in line.costs.items() if usd > 0))
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


def _caption(line: Line) -> str:
    most = max(line.costs, key=lambda part: line.costs[part])
    share = write(line.costs[most] / _total(line), "share")
    return f"USD per query by what it is paid for. The largest part of {line.label} is {most}: {share}."


def _row(line: Line, parts: Sequence[str]) -> tuple[Cell, ...]:
    return line.label, *(Number(line.costs.get(part, 0.0), "USD") for part in parts), Number(_total(line), "USD")


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
        x=[line.costs.get(part, 0.0) for line in lines],
        y=[wrap(line.label) for line in lines],
        marker={"color": COLOURS[index % 8], "pattern": pattern, "line": edge},
        hovertemplate="%{fullData.name}: $%{x:.3g}<extra></extra>",
    )
