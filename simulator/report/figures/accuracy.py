"""The picture: accuracy, measured, against cost per query, simulated; one labelled point per policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.simulator.report.blocks import Figure, table
from octavo.simulator.report.document import Measured
from octavo.simulator.report.figures.plot import COLOURS, SHAPES, axis, layout, log_scale, scale, trace, whiskers
from octavo.simulator.report.numbers import Cell, Number
from octavo.simulator.report.picture import Picture, Point

Groups = Mapping[str, Sequence[Point]]


def accuracy_against_cost(picture: Picture, name: str) -> Figure:
    groups, frontier = _groups(picture.points), picture.frontier
    clouds = [_cloud(title, points, i) for i, (title, points) in enumerate(groups.items())]
    return Figure(
        name=f"picture-{name}",
        title="Accuracy, measured, against cost per query, simulated",
        caption=(
            f"Accuracy: {picture.evaluation.queries} held-out queries, answered by the models of "
            f"{picture.evaluation.source}. Cost: scenario “{picture.simulation.name}”, simulated, on other hardware, "
            "perhaps with larger models. The two are joined by policy; nobody ran them as one. Whiskers are 95 % "
            f"intervals. Right of and below the dotted frontier, something cheaper is as good.{_beside(picture.rival)}"
        ),
        data=(_line(frontier), *clouds),
        layout=_layout(picture.points, groups) | _level(picture.rival),
        height=540,
        table=table(
            "Accuracy and cost",
            ("policy", "right", "cost per query", "on the frontier"),
            [_row(point, point in frontier) for point in picture.points],
        ),
    )


def _beside(rival: Measured | None) -> str:
    if rival is None:
        return ""
    return f" The dashed line is “{rival.label}”, as accurate as the ensemble: not simulated, so without a cost here."


def _level(rival: Measured | None) -> dict[str, Any]:
    """A line at the accuracy of a policy that has no place on the axis of costs."""
    if rival is None:
        return {}
    across = {"xref": "paper", "x0": 0, "x1": 1, "y0": 100 * rival.accuracy.value, "y1": 100 * rival.accuracy.value}
    label = {"text": f"{rival.label}: cost not simulated", "textposition": "start", "yanchor": "bottom"}
    style = {"color": "var(--c3)", "width": 1.3, "dash": "dash"}
    font = {"size": 11, "color": "var(--c3)"}
    return {"shapes": [{"type": "line", **across, "line": style, "label": {**label, "font": font}}]}


def _groups(points: Sequence[Point]) -> Groups:
    """Points by how many inferences they make, the most first."""
    groups: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda p: -(p.policy.inferences_per_query or 0)):
        groups.setdefault(_inferences(point.policy.inferences_per_query), []).append(point)
    return groups


def _inferences(count: float | None) -> str:
    if count is None or count <= 1:
        return "policies" if count is None else "one inference a query"
    return "16 inferences a query" if count == 16 else f"{'fewer' if count < 16 else 'more'} than 16"


def _row(point: Point, best: bool) -> tuple[Cell, ...]:
    right, cost = Number.of(point.accuracy, "share"), Number.of(point.cost, "USD")
    return point.label, right, cost, "yes" if best else ""


def _line(frontier: Sequence[Point]) -> dict[str, Any]:
    style = {"shape": "hv", "color": "var(--soft)", "width": 1.4, "dash": "dot"}
    x, y = [p.cost.value for p in frontier], [100 * p.accuracy.value for p in frontier]
    return trace("scatter", "Pareto frontier", mode="lines", x=x, y=y, line=style, hoverinfo="skip")


def _cloud(title: str, points: Sequence[Point], index: int) -> dict[str, Any]:
    x, y = [p.cost.value for p in points], [100 * p.accuracy.value for p in points]
    return trace(
        "scatter",
        title,
        mode="markers",
        x=x,
        y=y,
        text=[p.label for p in points],
        error_x=whiskers(x, [(p.cost.low, p.cost.high) for p in points]),
        error_y=whiskers(y, [(_percent(p.accuracy.low), _percent(p.accuracy.high)) for p in points]),
        marker={"color": COLOURS[index % 8], "symbol": SHAPES[index % 8], "size": 11},
        hovertemplate="<b>%{text}</b><br>%{y:.1f} % right<br>$%{x:.3g} a query<extra></extra>",
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _layout(points: Sequence[Point], groups: Groups) -> dict[str, Any]:
    chosen = scale([p.cost.value for p in points], prefix="$", padded=True)
    labels = [_label(p, COLOURS[i % 8]) for i, group in enumerate(groups.values()) for p in group]
    xaxis = axis(f"USD per query, simulated{log_scale(chosen)}", **chosen)
    return layout(xaxis, axis("right answers, measured (%)"), meta={"labels": labels}, hovermode="closest")


def _label(point: Point, colour: str) -> dict[str, Any]:
    """What the page's script writes beside the point, and the whiskers that it keeps clear of."""
    at = {"x": point.cost.value, "x_low": point.cost.low, "x_high": point.cost.high, "y": 100 * point.accuracy.value}
    ends = {"y_low": _percent(point.accuracy.low), "y_high": _percent(point.accuracy.high)}
    return {**at, **ends, "text": point.label, "color": colour}
