"""One side of the page: its controls, and the places that answers are put into."""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from octavo.simulator.studio.choices import Choices, defaults, devices, policies, scenarios
from octavo.simulator.studio.figures import empty

GRAPH: Any = {"displayModeBar": False, "responsive": True}
TALL = {"height": "250px"}
CONTROLS = ("scenario", "hardware", "replicas", "policy", "samples", "rate", "target", "spare")


def name(side: str, part: str) -> dict[str, str]:
    """The id of a part of one side."""
    return {"side": side, "part": part}


def side(letter: str, start: str) -> html.Section:
    """All of it, set to a built-in scenario."""
    choices = defaults(start)
    return html.Section(
        [
            html.H2(f"Side {letter.upper()}", className="letter"),
            *_controls(letter, choices),
            html.Div(id=name(letter, "cards"), className="cards", role="status"),
            _figure(letter, "latency", "How long queries take"),
            _figure(letter, "pareto", "What accuracy costs here, policy by policy"),
            html.Div(id=name(letter, "plan"), className="plan"),
            html.Button("Save as scenario file", id=name(letter, "save"), className="save"),
            dcc.Download(id=name(letter, "file")),
        ],
        className="side",
        id=f"side-{letter}",
    )


def _controls(letter: str, choices: Choices) -> list[Any]:
    listed = {
        "scenario": (scenarios(), choices.scenario, "Scenario"),
        "hardware": (devices(choices.scenario), choices.hardware, "Device"),
        "policy": (policies(choices.scenario), choices.policy, "Policy"),
    }
    slid = slides(choices)
    lists = (
        _labelled(part, text, dcc.Dropdown(id=name(letter, part), options=options, value=value, clearable=False))
        for part, (options, value, text) in listed.items()
    )
    sliders = (_labelled(part, text, dcc.Slider(id=name(letter, part), **slid[part])) for part, text in SLID.items())
    return [*lists, *sliders, dcc.Checklist([SPARE], [], id=name(letter, "spare"), className="control spare")]


SPARE = "also with any one device away"
SLID = {
    "replicas": "Copies of each placement",
    "samples": "Samples of each expert",
    "rate": "Traffic, queries a second",
    "target": "95 % answered within, seconds",
}


def slides(choices: Choices) -> dict[str, dict[str, Any]]:
    """The sliders' ranges around a scenario's own values."""
    return {
        "replicas": _slide(1, 8, 1, choices.replicas),
        "samples": _slide(1, max(4, choices.samples), 1, choices.samples),
        "rate": _slide(0, 5 * choices.rate, choices.rate / 20, choices.rate),
        "target": _slide(0, 4 * choices.latency_p95, choices.latency_p95 / 20, choices.latency_p95),
    }


def _slide(low: float, high: float, step: float, value: float) -> dict[str, Any]:
    ends = {low: f"{low:g}", high: f"{high:g}"}
    return {"min": low, "max": high, "step": step, "value": value, "marks": ends, "updatemode": "mouseup"}


def _labelled(part: str, text: str, control: Any) -> html.Div:
    return html.Div([html.Label(text), control], className=f"control {part}")


def _figure(letter: str, part: str, title: str) -> html.Div:
    graph = dcc.Graph(id=name(letter, part), figure=empty(), config=GRAPH, style=TALL)
    return html.Div([html.H3(title), graph], className="figure")
