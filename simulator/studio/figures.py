"""The page's two figures: how long queries take, and what accuracy costs."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from octavo.simulator.result import Result
from octavo.simulator.studio.answers import PolicyPoint

INK, GRID = "#808a97", "rgba(128,138,151,0.25)"  # on light and on dark
ACCENT, TARGET = "#0072b2", "#d55e00"  # of Okabe and Ito's colour-blind safe set


def latency(result: Result, target: float) -> go.Figure:
    """The share of queries that take at most so long, and the target that 95 % should meet."""
    figure = empty("seconds from question to answer", "share of queries")
    seconds = result.latencies
    if seconds and not result.overloaded:
        shares = [(place + 1) / len(seconds) for place in range(len(seconds))]
        figure.add_scatter(x=list(seconds), y=shares, mode="lines", line={"color": ACCENT, "width": 2}, name="queries")
    figure.add_scatter(
        x=[target], y=[0.95], mode="markers", marker={"symbol": "x", "size": 10, "color": TARGET}, name="target"
    )
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_xaxes(rangemode="tozero")
    return figure


def pareto(points: Sequence[PolicyPoint], chosen: str) -> go.Figure:
    """Accuracy against the device time that a query keeps busy; nothing beats the policies on the line."""
    figure = empty("$ of busy device time a query", "accuracy")
    front = [p for p in points if not any(q.usd <= p.usd and q.accuracy >= p.accuracy and q != p for q in points)]
    front.sort(key=lambda point: point.usd)
    figure.add_scatter(
        x=[p.usd for p in front],
        y=[p.accuracy for p in front],
        mode="lines",
        line={"color": INK, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[p.usd for p in points],
        y=[p.accuracy for p in points],
        mode="markers+text",
        text=[p.policy for p in points],
        textposition=_beside(points),
        cliponaxis=False,
        textfont={"size": 10},
        marker={
            "size": [14 if p.policy == chosen else 8 for p in points],
            "color": [TARGET if p.policy == chosen else ACCENT for p in points],
        },
        customdata=[["overloaded" if p.latency_p95 is None else f"p95 {p.latency_p95:.3g} s"] for p in points],
        hovertemplate="%{text}: %{y:.1%}, %{x:$.3g}, %{customdata[0]}<extra></extra>",
    )
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(rangemode="tozero", tickprefix="$")
    return figure


def _beside(points: Sequence[PolicyPoint]) -> list[str]:
    """Names of points that come after one another in cost stand on different sides of theirs."""
    sides = ("top center", "bottom center", "middle left")
    order = sorted(range(len(points)), key=lambda index: (points[index].usd, points[index].accuracy))
    place = {index: sides[number % len(sides)] for number, index in enumerate(order)}
    return [place[index] for index in range(len(points))]


def empty(x: str = "", y: str = "") -> go.Figure:
    """Axes without anything on them."""
    figure = go.Figure()
    figure.update_layout(
        margin={"l": 50, "r": 12, "t": 10, "b": 40},
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 12},
        xaxis={"title": {"text": x}, "gridcolor": GRID, "zeroline": False},
        yaxis={"title": {"text": y}, "gridcolor": GRID, "zeroline": False},
    )
    return figure
