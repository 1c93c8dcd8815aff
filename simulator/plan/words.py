"""The answer on one screen: at most 100 columns, the same bytes for the same plan."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from octavo.profiles.age import months_old, price_date
from octavo.profiles.scenario import Service
from octavo.simulator.plan.cost import HOURS_PER_MONTH
from octavo.simulator.plan.line import Line, words
from octavo.simulator.plan.pareto import picture
from octavo.simulator.plan.questions import MOST_TRAFFIC, SWING, Swing
from octavo.simulator.plan.result import Plan
from octavo.simulator.plan.trials import AT_LEAST, Evaluation, spared
from octavo.simulator.plan.unplanned import Interrupted

WIDTH = 100
BAR = 50
COLUMNS = f"{'':<24}{'$/h':>9}{'$/query':>11}{'accuracy':>10}{'p95 s':>8}{'busy':>7}  fleet"


def lines(plan: Plan, *, co2: bool = False) -> list[str]:
    """What the command line prints."""
    return [piece for text in _texts(plan, co2) for piece in _wrapped(text)]


def _texts(plan: Plan, co2: bool) -> Iterator[str]:
    best, targets = plan.best, plan.chosen.scenario.targets
    yield f"{plan.own.name}: {plan.own.scenario.description}"
    yield from _bought(plan.chosen, co2)
    if plan.chosen is not plan.own:
        yield f"policy     {plan.chosen.name}"
    yield f"load       devices {best['utilisation']:.0%} busy{_headroom(plan)}"
    yield f"sure       {_interval(plan)}"
    if checked := plan.checked():
        yield f"checked    {checked}"
    spare = " with any one device away" if targets.n_minus_1 else ""
    yield f"cheaper    {plan.next_cheaper() or f'no cheaper fleet can keep up or hold the models{spare}'}"
    yield f"relax      {plan.relaxations[0] if plan.relaxations else 'to give up one target saves nothing'}"
    if targets.n_minus_1 is None:
        for text in plan.one_down:
            yield f"failure    without {text}"
    for text in plan.break_even():
        yield f"pays       {text}"
    for each in plan.what_if:
        cost = "no plan" if each.usd_per_hour is None else f"{each.usd_per_hour:.2f} $/h"
        yield f"what if    {each.changes}: {cost}, {each.fleet}"
    if plan.sensitivity:
        yield ""
        yield from tornado(plan.sensitivity, best.usd_per_hour)
    yield ""
    yield COLUMNS
    yield from (_row(line) for line in plan.lines)
    yield ""
    yield from picture(plan.choices())


def lines_so_far(stopped: Interrupted, *, co2: bool = False) -> list[str]:
    """What the command line prints of a search that was stopped."""
    return [piece for text in _texts_so_far(stopped, co2) for piece in _wrapped(text)]


def _texts_so_far(stopped: Interrupted, co2: bool) -> Iterator[str]:
    if stopped.lines:
        yield f"{stopped.lines[0].name}: {stopped.lines[0].scenario.description}"
    yield f"INCOMPLETE {stopped}"
    if stopped.best:
        yield from _bought(stopped.lines[0], co2)
    yield ""
    yield COLUMNS
    yield from (_row(line) for line in stopped.lines)


def _bought(line: Line, co2: bool) -> Iterator[str]:
    best, targets = line.found, line.scenario.targets
    yield f"buy        {words(best, line.scenario)}"
    yield f"cost       {_cost(best)}"
    yield f"prices     {_prices(line)}"
    yield f"energy     {best['joules_per_query']:,.0f} J/query{_carbon(best) if co2 else ''}"
    yield f"reaches    {_reached(best, targets) or 'no targets: the cheapest fleet that keeps up'}"
    yield from _with_one_away(line)


def _wrapped(text: str) -> list[str]:
    if len(text) <= WIDTH:
        return [text]
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * 11)


def _cost(best: Evaluation) -> str:
    answers = best.metrics.get("usd_per_million_tokens")
    per_million = f", {answers.value:.3g} $/1M answer tokens" if answers else ""
    month = best.usd_per_hour * HOURS_PER_MONTH
    return f"{best.usd_per_hour:.2f} $/h, {month:,.0f} $/month, {best['usd_per_query']:.3g} $/query{per_million}"


def _reached(best: Evaluation, targets: Service) -> str:
    found = []
    for name, wanted in targets.wanted.items():
        estimate = best.metrics[name]
        half = estimate.half_width
        spread = "" if half is None else f" ± {half:.2g}"
        limit = "at least" if name in AT_LEAST else "at most"
        found.append(f"{name} {estimate.value:.3g}{spread} ({limit} {wanted:g})")
    return "; ".join(found)


def _prices(line: Line) -> str:
    """How old they are."""
    fleet = line.found.point.applied(line.scenario)
    dates: dict[str | None, list[str]] = {}
    for tier, name in fleet.devices():
        dates.setdefault(price_date(fleet.hardware[name], fleet.fleet.tiers[tier].basis), []).append(name)
    said = [
        f"{', '.join(names)}: " + (f"of {date}, {months_old(date)} months old" if date else "the scenario's own")
        for date, names in dates.items()
    ]
    return "; ".join(said)


def _with_one_away(line: Line) -> Iterator[str]:
    """What is reached without each kind of replica, where the targets ask for it."""
    if (served := spared(line.scenario.targets)) is None:
        return
    for model, each in line.found.down.items():
        yield f"n-1        without a replica of {model}: {_reached(each, served) or 'it keeps up and answers'}"


def _carbon(best: Evaluation) -> str:
    grams = best.metrics.get("grams_co2e_per_query")
    return f", {grams.value / 1000:.3g} kg CO2e/query" if grams else ", CO2e unknown (no carbon intensity)"


def _headroom(plan: Plan) -> str:
    if plan.headroom is None:
        return ""
    if plan.headroom < 1.01:
        return "; no more traffic than this fits the targets"
    most = "at least " if plan.headroom >= MOST_TRAFFIC else "about "
    return f"; targets hold up to {most}{plan.headroom:.2f} times the traffic"


def _interval(plan: Plan) -> str:
    low, high = ("no number of these is enough" if usd is None else f"{usd:.2f} $/h" for usd in plan.band)
    best = plan.best
    less, more = f"{best.band.shorter:.0%} less", f"{best.band.longer:.0%} more time"
    steps = f"{low} where steps take {less}, {high} where they take {more}"
    if low == high:
        steps = f"{low} where steps take {less} or {more}"
    runs = f"{len(best.seeds)} {'seed' if len(best.seeds) == 1 else 'seeds'}"
    runs += f" x {best.queries} queries" if best.queries else ""
    return f"{steps}; {runs}; {best.label}"


def _row(line: Line) -> str:
    best = line.best
    if best is None:
        none = "no plan" if line.finished else "nothing yet"
        return f"{line.name:<24}{none + ': ' + line.why():<76}"[:WIDTH]
    right = f"{best['accuracy']:.1%}" if "accuracy" in best.metrics else "-"
    numbers = f"{best.usd_per_hour:>9.2f}{best['usd_per_query']:>11.3g}{right:>10}{best['latency_p95']:>8.3g}"
    return f"{line.name[:23]:<24}{numbers}{best['utilisation']:>7.0%}  {words(best, line.scenario)}"[:WIDTH]


def tornado(swings: Sequence[Swing], usd_per_hour: float) -> Iterator[str]:
    """A bar per input from its cheaper to its dearer end; where no fleet is enough the bar is open."""
    ends = [usd for each in swings for usd in (each.less, each.more) if usd is not None]
    low, high = min([usd_per_hour, *ends]), max([usd_per_hour, *ends])
    scale = (BAR - 1) / ((high - low) or 1)
    yield f"{'$/h where an input changes':<28}{f'-{SWING:.0%}':>9}{f'+{SWING:.0%}':>9}"
    for each in swings:
        at = sorted(round(((high if usd is None else usd) - low) * scale) for usd in (each.less, each.more))
        now = round((usd_per_hour - low) * scale)
        bar = [" "] * BAR
        bar[at[0] : at[1] + 1] = "=" * (at[1] - at[0] + 1)
        bar[now] = "|"
        said = "".join(f"{'none' if usd is None else f'{usd:.2f}':>9}" for usd in (each.less, each.more))
        yield f"{each.name[:27]:<28}{said}  {''.join(bar).rstrip()}"
