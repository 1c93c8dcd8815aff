"""Distributions of query latency: the lines of a simulation, or a load as measured and as simulated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from octavo.simulator.report.blocks import Figure, Table, table
from octavo.simulator.report.document import Simulation, Validation
from octavo.simulator.report.figures.plot import COLOURS, DASHES, axis, layout, log_scale, quantiles, scale, trace
from octavo.simulator.report.numbers import Cell, Number, write

Samples: TypeAlias = Sequence[tuple[str, Sequence[float]]]

_QUANTILES = (0.5, 0.9, 0.95, 0.99)


def latencies(simulation: Simulation, name: str) -> Figure | None:
    """One curve per line, the scenario's own first and thickest."""
    samples = [(line.key, line.latencies) for line in simulation.steady if line.latencies]
    if not samples:
        return None
    label, first = samples[0]
    half, most = write(_quantile(first, 0.5), "s"), write(_quantile(first, 0.95), "s")
    return _distributions(
        f"latency-{name}",
        f"How long a query takes: {simulation.name}",
        "Share of the queries answered within a time, from arrival to the last token of the answer. "
        f"{label}: half within {half}, 95 % within {most}.",
        samples,
    )


def compared(validation: Validation, name: str) -> Figure | None:
    """Two curves; the gap between them is the simulation's error."""
    samples = (("measured", validation.measured), ("simulated", validation.simulated))
    if not all(sample for _, sample in samples):
        return None
    return _distributions(
        f"validation-{name}",
        f"One load, served and simulated: {validation.name}",
        "Share of the queries answered within a time. Where the curves part, the simulation is wrong by the gap.",
        samples,
    )


def _distributions(name: str, title: str, caption: str, samples: Samples) -> Figure:
    chosen = scale([end for _, sample in samples for end in (min(sample), max(sample))])
    xaxis = axis(f"latency of a query (s{log_scale(chosen)})", **chosen)
    return Figure(
        name=name,
        title=title,
        caption=caption,
        data=tuple(_curve(label, sample, i) for i, (label, sample) in enumerate(samples)),
        layout=layout(xaxis, axis("share of the queries (%)", range=[0, 101], dtick=25), hovermode="closest"),
        height=400,
        table=_table(samples),
    )


def _curve(label: str, sample: Sequence[float], index: int) -> dict[str, Any]:
    values, shares = quantiles(sample)
    width = 2.6 if index == 0 else 1.9
    return trace(
        "scatter",
        label,
        mode="lines",
        x=values,
        y=[round(100 * share, 3) for share in shares],
        line={"color": COLOURS[index % 8], "dash": DASHES[index % 8], "width": width, "shape": "hv"},
        hovertemplate="%{y:.1f} % within %{x:.3g} s<extra>%{fullData.name}</extra>",
    )


def _table(samples: Samples) -> Table:
    columns = ("", *(f"p{100 * share:g}" for share in _QUANTILES), "of")
    return table("Quantiles of latency", columns, [_row(label, sample) for label, sample in samples])


def _row(label: str, sample: Sequence[float]) -> tuple[Cell, ...]:
    return label, *(Number(_quantile(sample, share), "s") for share in _QUANTILES), Number(len(sample), "queries")


def _quantile(sample: Sequence[float], share: float) -> float:
    ordered = sorted(sample)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
