"""How every figure looks: colours, marks and fonts of the page, axes with their unit, room for a phone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from octavo.simulator.report.numbers import digits

# Okabe and Ito's colours, adjusted for each background in report.css; shape and dash say the same again without colour.
COLOURS = tuple(f"var(--c{i})" for i in range(8))
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "5px,2px", "2px,3px")
PATTERNS = ("", "/", ".", "x", "\\", "-", "+", "|")
HEAT = ((0.0, "var(--heat0)"), (0.5, "var(--heat1)"), (1.0, "var(--heat2)"))

_POINTS = 240
_WIDEST_LINEAR = 5.0


def trace(kind: str, name: str, /, **fields: Any) -> dict[str, Any]:
    """One plotly trace."""
    return {"type": kind, "name": name, **fields}


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis that says what it shows and in which unit."""
    quiet = {"gridcolor": "var(--grid)", "linecolor": "var(--line)", "tickcolor": "var(--line)", "zeroline": False}
    said = {"title": {"text": title, "standoff": 10, "font": {"size": 13}}, "automargin": True, "ticks": "outside"}
    return {**quiet, **said, "ticklen": 4, **more}


def layout(xaxis: dict[str, Any], yaxis: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "font": {"family": "var(--sans)", "size": 12.5, "color": "var(--ink)"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 64, "r": 16, "t": 12, "b": 52},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
            "traceorder": "normal",
        },
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "xaxis": xaxis,
        "yaxis": yaxis,
        **more,
    }


def scale(values: Iterable[float], *, prefix: str = "", padded: bool = False) -> dict[str, Any]:
    """A logarithmic axis where the values span more than a decade or so. Padding leaves room for labels."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) / min(positive) < _WIDEST_LINEAR:
        return {"rangemode": "tozero", "tickprefix": prefix}
    low, high = math.log10(min(positive)), math.log10(max(positive))
    margin = (0.14 if padded else 0.02) * (high - low)
    ticks = _ticks(low - margin, high + margin)
    said = [f"{prefix}{digits(tick, 1)}" for tick in ticks]
    return {"type": "log", "range": [low - margin, high + margin], "tickvals": ticks, "ticktext": said}


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade, or fewer where the decades are many; the ends are logarithms."""
    steps = (1, 2, 5) if high - low < 2.2 else (1, 3) if high - low < 3.5 else (1,)
    every = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [float(f"{tick:.6g}") for tick in every if low <= math.log10(tick) <= high]


def log_scale(chosen: Mapping[str, Any]) -> str:
    """What an axis title says of such an axis."""
    return ", log scale" if chosen.get("type") == "log" else ""


def whiskers(values: Sequence[float], ends: Sequence[tuple[float | None, float | None]]) -> dict[str, Any]:
    """Interval bars, of no length where no interval is known."""
    above = [max(0.0, (high if high is not None else v) - v) for v, (_, high) in zip(values, ends, strict=True)]
    below = [max(0.0, v - (low if low is not None else v)) for v, (low, _) in zip(values, ends, strict=True)]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.2, "width": 3}


def quantiles(sample: Sequence[float], count: int = _POINTS) -> tuple[list[float], list[float]]:
    """Values and shares of the empirical distribution: every value of a small sample, quantiles of a large one."""
    ordered = sorted(sample)
    if len(ordered) <= count:
        return [short(v) for v in ordered], [short((i + 1) / len(ordered)) for i in range(len(ordered))]
    shares = [i / (count - 1) for i in range(count)]
    return [short(ordered[round(share * (len(ordered) - 1))]) for share in shares], [short(share) for share in shares]


def short(value: float) -> float:
    """Five digits are more than a figure shows, and keep the file small."""
    return float(f"{value:.5g}")


def wrap(label: str, width: int = 22) -> str:
    """The label in lines, for tick labels."""
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)
