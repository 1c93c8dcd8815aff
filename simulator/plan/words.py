"""The answer on one screen: at most 100 columns, the same bytes for the same plan."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from octavo.simulator.plan.cost import HOURS_PER_MONTH
from octavo.simulator.plan.line import Line, words
from octavo.simulator.plan.pareto import picture
from octavo.simulator.plan.result import Plan
from octavo.simulator.plan.trials import Evaluation

WIDTH = 100
COLUMNS = f"{'':<24}{'$/h':>9}{'$/query':>11}{'accuracy':>10}{'p95 s':>8}{'busy':>7}  fleet"


def lines(plan: Plan, *, co2: bool = False) -> list[str]:
    """What the command line prints."""
    return [piece for text in _texts(plan, co2) for piece in _wrapped(text)]


def _texts(plan: Plan, co2: bool) -> Iterator[str]:
    best = plan.best
    yield f"{plan.own.name}: {plan.own.scenario.description}"
    yield f"fleet      {words(best, plan.chosen.scenario)}"
    if plan.chosen is not plan.own:
        yield f"policy     {plan.chosen.name}"
    yield f"cost       {_cost(best)}"
    yield f"targets    {_reached(plan)}"
    yield f"energy     {best['joules_per_query']:.4g} J/query{_carbon(best) if co2 else ''}"
    yield f"busy       {best['utilisation']:.0%}{_headroom(plan)}"
    yield f"interval   {_interval(plan)}"
    yield f"cheaper    {plan.next_cheaper() or 'no cheaper fleet can keep up or hold the models'}"
    yield f"relax      {plan.relaxations[0] if plan.relaxations else 'no single target stands in the way of saving'}"
    for text in plan.break_even():
        yield f"pays       {text}"
    for each in plan.what_if:
        cost = "no plan" if each.usd_per_hour is None else f"{each.usd_per_hour:.2f} USD/h"
        yield f"what if    {each.changes}: {cost}, {each.fleet}"
    yield ""
    yield COLUMNS
    yield from (_row(line) for line in plan.lines)
    yield ""
    yield from picture(plan.choices())


def _wrapped(text: str) -> list[str]:
    if len(text) <= WIDTH:
        return [text]
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * 11)


def _cost(best: Evaluation) -> str:
    answers = best.metrics.get("usd_per_million_tokens")
    per_million = f", {answers.value:.3g} $/1M answer tokens" if answers else ""
    month = best.usd_per_hour * HOURS_PER_MONTH
    return f"{best.usd_per_hour:.2f} $/h, {month:,.0f} $/month, {best['usd_per_query']:.3g} $/query{per_million}"


def _reached(plan: Plan) -> str:
    found = []
    for name, wanted in plan.chosen.scenario.targets:
        if wanted is not None:
            estimate = plan.best.metrics[name]
            low, high = estimate.low, estimate.high
            spread = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
            found.append(f"{name} {estimate.value:.3g}{spread} of {wanted:g}")
    return "; ".join(found) or "none: the cheapest fleet that keeps up"


def _carbon(best: Evaluation) -> str:
    grams = best.metrics.get("grams_co2e_per_query")
    return f", {grams.value / 1000:.3g} kg CO2e/query" if grams else ", CO2e unknown (no carbon intensity)"


def _headroom(plan: Plan) -> str:
    return "" if plan.headroom is None else f"; carries {plan.headroom:.2f}x the traffic within its targets"


def _interval(plan: Plan) -> str:
    low, high = ("no such fleet" if usd is None else f"{usd:.2f}" for usd in plan.band)
    best = plan.best
    return f"{low} to {high} $/h if steps are {best.band:.0%} faster or slower; {len(best.seeds)} seeds; {best.label}"


def _row(line: Line) -> str:
    best = line.best
    if best is None:
        return f"{line.name:<24}{'no plan: ' + line.why():<76}"[:WIDTH]
    right = f"{best['accuracy']:.1%}" if "accuracy" in best.metrics else "-"
    numbers = f"{best.usd_per_hour:>9.2f}{best['usd_per_query']:>11.3g}{right:>10}{best['latency_p95']:>8.3g}"
    return f"{line.name[:23]:<24}{numbers}{best['utilisation']:>7.0%}  {words(best, line.scenario)}"[:WIDTH]
