"""The page: two sides, and what happens when one of their controls is moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from dash import MATCH, Dash, Input, Output, State, callback_context, dcc, html, no_update
from dash.exceptions import PreventUpdate
from flask import Response, abort, request

from octavo.profiles.errors import ConfigError, OctavoError
from octavo.simulator.result import Result
from octavo.simulator.studio import figures
from octavo.simulator.studio.answers import PLANNED, answered, compared, planned
from octavo.simulator.studio.choices import QUERIES, Choices, defaults, devices, policies, scenario_of, scenarios
from octavo.simulator.studio.side import CONTROLS, SLID, side, slides

LOCAL = ("127.0.0.1", "localhost", "::1")


def make_app(scenario: str = "single-box") -> Dash:
    """The Dash application. Raises ConfigError where there is no such scenario, or its traffic has no rate."""
    if scenario not in scenarios():
        raise ConfigError(f"studio: no scenario {scenario!r} with a rate; there are {', '.join(scenarios())}")
    app = Dash("octavo", title="octavo studio", update_title="", assets_folder=str(Path(__file__).parent / "assets"))
    app.layout = _page(scenario)
    app.server.before_request(_only_here)
    _wire(app)
    return app


def _only_here() -> None:
    """A page of another site may have this machine's name pointed at it; its requests carry that site's name."""
    if request.host.rsplit(":", 1)[0].strip("[]") not in LOCAL:
        abort(Response("octavo studio answers on 127.0.0.1 only", 403))


def _page(scenario: str) -> html.Main:
    words = f"Every change runs the simulator on {QUERIES} queries. For intervals: octavo simulate, octavo plan."
    return html.Main(
        [
            html.Header([html.H1("octavo studio"), html.P(words)]),
            dcc.Checklist(["compare two"], [], id="compare", inline=True),
            html.Div([side("a", scenario), side("b", scenario)], id="sides", className="alone"),
        ]
    )


def _wire(app: Dash) -> None:
    chosen, saved = ([kind(_of(part), "value") for part in CONTROLS] for kind in (Input, State))
    shown = Input("compare", "value")
    app.callback(Output("sides", "className"), shown)(lambda on: "together" if on else "alone")
    app.callback(
        [Output(_of("hardware"), "options"), Output(_of("policy"), "options"), *_values()],
        Input(_of("scenario"), "value"),
        prevent_initial_call=True,
    )(_reset)
    app.callback(Output(_of("cards"), "children"), Output(_of("latency"), "figure"), shown, *chosen)(_numbers)
    # One after the other, so that what takes longer does not hold up what is there at once.
    app.callback(Output(_of("plan"), "children"), Input(_of("cards"), "children"), *saved)(_plan)
    app.callback(Output(_of("pareto"), "figure"), Input(_of("plan"), "children"), *saved)(_policies)
    app.callback(Output(_of("file"), "data"), Input(_of("save"), "n_clicks"), *saved, prevent_initial_call=True)(_save)


def _of(part: str) -> dict[str, Any]:
    return {"side": MATCH, "part": part}


def _values() -> list[Output]:
    plain = [Output(_of(part), "value") for part in ("hardware", "policy")]
    slid = [Output(_of(part), key) for part in SLID for key in ("min", "max", "step", "marks", "value")]
    return [*plain, *slid]


def _reset(scenario: str) -> list[Any]:
    """Another scenario: its own values, and what may be chosen with it."""
    choices = defaults(scenario)
    slid = slides(choices)
    values = [slid[part][key] for part in SLID for key in ("min", "max", "step", "marks", "value")]
    return [devices(scenario), policies(scenario), choices.hardware, choices.policy, *values]


def _choices(values: tuple[Any, ...]) -> Choices:
    scenario, hardware, replicas, policy, samples, rate, target, spare = values
    least = defaults(scenario)
    return Choices(
        scenario,
        hardware,
        int(replicas),
        policy,
        int(samples),
        float(rate) or least.rate / 100,
        float(target) or least.latency_p95 / 100,
        bool(spare),
    )


def _numbers(compare: list[str], *values: Any) -> tuple[Any, Any]:
    if not compare and callback_context.outputs_list[0]["id"]["side"] != "a":
        raise PreventUpdate
    choices = _choices(values)
    try:
        result = answered(choices)
    except OctavoError as error:
        return html.P(str(error), className="bad"), no_update
    return _cards(result), figures.latency(result, choices.latency_p95)


def _cards(result: Result) -> list[Any]:
    if result.overloaded:
        said = html.P(f"Overloaded: {result.overloaded}", className="bad verdict")
        return [said, _card("an hour", f"${result['usd_per_hour']:,.2f}"), html.P(result.fleet, className="fleet")]
    verdict = "; ".join(result.missed) or "meets its targets"
    times = {"p95": f"{result['latency_p95']:.3g} s", "first token p95": f"{result['ttft_p95']:.3g} s"}
    return [
        html.P(verdict, className=("bad" if result.missed else "good") + " verdict"),
        *(_card(what, text) for what, text in times.items()),
        *_money(result),
    ]


def _money(result: Result) -> list[Any]:
    shown = {
        "a query": f"${result['usd_per_query']:.3g}",
        "an hour": f"${result['usd_per_hour']:,.2f}",
        "energy a query": f"{result['joules_per_query']:,.0f} J",
        "devices busy": f"{result['utilisation']:.0%}",
        "accuracy": f"{result['accuracy']:.1%}" if "accuracy" in result.metrics else "unknown",
    }
    return [*(_card(what, text) for what, text in shown.items()), html.P(result.fleet, className="fleet")]


def _card(what: str, text: str) -> html.Div:
    return html.Div([html.Strong(text), html.Span(what)], className="card")


def _policies(before: Any, *values: Any) -> Any:
    if before is None:
        raise PreventUpdate
    choices = _choices(values)
    return figures.pareto(compared(choices), choices.policy)


def _plan(before: Any, *values: Any) -> Any:
    if before is None:
        raise PreventUpdate
    choices = _choices(values)
    try:
        found = planned(choices)
    except OctavoError as error:
        return html.P(f"No plan: {error}", className="bad")
    if found.usd_per_hour is None:
        return html.P(f"No fleet of {choices.hardware} meets the target: {found.fleet}", className="bad")
    return html.P(
        [html.Strong("Cheapest fleet of this device: "), f"{found.fleet}, ${found.usd_per_hour:,.2f} an hour"]
    )


def _save(clicks: int | None, *values: Any) -> Any:
    if not clicks:
        raise PreventUpdate
    scenario = scenario_of(_choices(values))
    hardware = values[1]
    said = (
        "# octavo simulate THIS_FILE gives the page's numbers, and its fleet is found again by\n"
        f"# octavo plan THIS_FILE --hardware {hardware} --queries {PLANNED}\n"
        "# To buy by it, raise workload.queries and seeds.\n"
    )
    text = said + yaml.safe_dump(scenario.dump(), sort_keys=False, allow_unicode=True, width=110)
    side_of = callback_context.triggered_id["side"]
    return {"content": text, "filename": f"{scenario.name}-{side_of}.yaml", "type": "text/yaml"}
