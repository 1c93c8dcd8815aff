"""What each device did over time: how busy it was, its batch, and how full its KV memory was."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from octavo.simulator.report.blocks import Figure, Table, table
from octavo.simulator.report.document import Simulation, Track
from octavo.simulator.report.figures.plot import COLOURS, DASHES, HEAT, axis, layout, short, trace
from octavo.simulator.report.numbers import Number

_COLUMNS = 160
_AS_LINES = 3


class Quantity(NamedTuple):
    """A field of a track, what it is called, and in which unit it is shown."""

    field: str
    title: str
    unit: str
    factor: float


QUANTITIES = (
    Quantity("utilisation", "busy", "%", 100.0),
    Quantity("queue", "prompts that wait", "prompts", 1.0),
    Quantity("batch", "batch", "sequences", 1.0),
    Quantity("kv", "KV memory in use", "%", 100.0),
    Quantity("watts", "power", "W", 1.0),
)


def timeline(simulation: Simulation, name: str) -> Figure | None:
    """The devices of the scenario itself, one panel per quantity: a row per device, or a curve where they are few."""
    line = simulation.lines[0]
    shown = [q for q in QUANTITIES if any(getattr(track, q.field) for track in line.tracks)]
    if not shown:
        return None
    few = len(line.tracks) <= _AS_LINES
    grid = _grid(line.tracks)
    make = _curves if few else _heat
    data = tuple(trace for i, q in enumerate(shown) for trace in make(line.tracks, q, i, grid, len(shown)))
    height = 150 if few else max(110, min(300, 16 * len(line.tracks)))
    return Figure(
        f"timeline-{name}",
        f"Devices over time: {simulation.name}, {line.key}",
        f"{_count(line.tracks)} on {line.devices or 'their devices'}, from top to bottom: "
        f"{', '.join(f'{q.title} ({q.unit})' for q in shown)}. A query waits for the slowest of its experts.",
        data,
        _panels(shown, few),
        90 + (height + 34) * len(shown),
        _means(line.tracks, shown),
    )


def _count(tracks: Sequence[Track]) -> str:
    return f"{len(tracks)} replicas" if len(tracks) > 1 else "One replica"


def _grid(tracks: Sequence[Track]) -> list[float]:
    end = max(track.time[-1] for track in tracks if track.time)
    return [end * i / (_COLUMNS - 1) for i in range(_COLUMNS)]


def _held(track: Track, quantity: Quantity, grid: Sequence[float]) -> list[float | None]:
    """The track on the grid: the last value before each time."""
    values = getattr(track, quantity.field)
    at = [bisect_right(track.time, time) - 1 for time in grid]
    return [short(quantity.factor * values[i]) if 0 <= i < len(values) else None for i in at]


def _curves(tracks: Sequence[Track], q: Quantity, panel: int, grid: Sequence[float], _: int) -> list[dict[str, Any]]:
    return [
        trace(
            *("scatter", track.device),
            mode="lines",
            legendgroup=track.device,
            showlegend=panel == 0,
            x=[short(time) for time in grid],
            y=_held(track, q, grid),
            line={"color": COLOURS[i], "dash": DASHES[i], "width": 1.6, "shape": "hv"},
            hovertemplate=f"%{{y:.3g}} {q.unit} at %{{x:.3g}} s<extra>%{{fullData.name}}</extra>",
            **_axes(panel),
        )
        for i, track in enumerate(tracks)
    ]


def _heat(tracks: Sequence[Track], q: Quantity, panel: int, grid: Sequence[float], panels: int) -> list[dict[str, Any]]:
    low, high = _domain(panel, panels)
    bar = {"len": high - low, "y": (low + high) / 2, "thickness": 9, "x": 1.01, "outlinewidth": 0, "ticklen": 3}
    return [
        trace(
            *("heatmap", q.title),
            x=[short(time) for time in grid],
            y=[track.device for track in tracks],
            z=[_held(track, q, grid) for track in tracks],
            zmin=0,
            zmax=100 if q.unit == "%" else None,
            ygap=1,
            colorscale=HEAT,
            colorbar=bar,
            hovertemplate=f"%{{y}}: %{{z:.3g}} {q.unit} at %{{x:.3g}} s<extra></extra>",
            **_axes(panel),
        )
    ]


def _axes(panel: int) -> dict[str, str]:
    return {"xaxis": "x", "yaxis": f"y{panel + 1}" if panel else "y"}


def _domain(panel: int, panels: int) -> tuple[float, float]:
    """The vertical share of a panel, counted from the top."""
    size = 1 / panels
    return 1 - (panel + 1) * size + 0.02, 1 - panel * size - 0.055


def _panels(shown: Sequence[Quantity], few: bool) -> dict[str, Any]:
    curves: dict[str, Any] = {"rangemode": "tozero", "nticks": 4}
    rows: dict[str, Any] = {"autorange": "reversed", "showgrid": False, "type": "category", "ticks": ""}
    domains = [_domain(i, len(shown)) for i in range(len(shown))]
    first, *others = (axis("", domain=domain, **(curves if few else rows)) for domain in domains)
    titles = [_title(f"{q.title} ({q.unit})", high) for q, (_, high) in zip(shown, domains, strict=True)]
    bottom = axis("time (s)", anchor=f"y{len(shown)}" if others else "y", showgrid=False)
    rest = {f"yaxis{i}": each for i, each in enumerate(others, 2)}
    return layout(bottom, first, annotations=titles, **rest)


def _title(text: str, top: float) -> dict[str, Any]:
    place = {"xref": "paper", "yref": "paper", "x": 0, "y": top, "xanchor": "left", "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "font": {"size": 13}, **place}


def _means(tracks: Sequence[Track], shown: Sequence[Quantity]) -> Table:
    rows = [(track.device, *(_mean(getattr(track, q.field), q) for q in shown)) for track in tracks]
    return table("Means over the run", ("device", *(f"{q.title}, mean" for q in shown)), rows)


def _mean(values: Sequence[float], q: Quantity) -> Number | None:
    unit = "share" if q.unit == "%" else q.unit
    return Number(sum(values) / len(values), unit) if values else None
