"""The report's sections, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import yaml

from octavo.profiles.latency import LatencyProfile
from octavo.simulator.report import figures, words
from octavo.simulator.report.assumptions import assumptions, is_rumour
from octavo.simulator.report.blocks import Block, Bullets, Code, Page, Section, Table, Text, section, table
from octavo.simulator.report.document import (
    Compared,
    Document,
    Estimate,
    Evaluation,
    Line,
    Measured,
    Measurement,
    Planned,
    Simulation,
    Validation,
)
from octavo.simulator.report.numbers import Cell, Number
from octavo.simulator.report.picture import COST, Picture
from octavo.simulator.report.runs import Runs
from octavo.simulator.report.summary import summary


class Metric(NamedTuple):
    """A column of the simulated lines."""

    name: str
    title: str
    unit: str


PERFORMANCE = (
    Metric("latency_p50", "latency p50", "s"),
    Metric("latency_p95", "latency p95", "s"),
    Metric("latency_p99", "latency p99", "s"),
    Metric("ttft_p50", "TTFT p50", "s"),
    Metric("ttft_p95", "TTFT p95", "s"),
    Metric("throughput", "answered", "/s"),
    Metric("utilisation", "busy", "share"),
    Metric("accuracy", "right, simulated", "share"),
)
SERVED = (
    Metric("latency_p50", "latency p50", "s"),
    Metric("latency_p95", "latency p95", "s"),
    Metric("ttft_p95", "TTFT p95", "s"),
    Metric("availability", "answered", "share"),
    Metric("accuracy", "right, simulated", "share"),
)
MONEY = (
    Metric(COST, "per query", "USD"),
    Metric("usd_per_million_tokens", "per 1M answer tokens", "USD"),
    Metric("usd_per_hour", "per hour", "USD"),
    Metric("joules_per_query", "energy per query", "J"),
    Metric("kwh", "energy of the run", "kWh"),
)


def page(documents: Iterable[Document], title: str | None, command: str | None) -> Page:
    """The report of these documents; what they don't say is left out."""
    runs = Runs(tuple(documents))
    parts = (
        summary(runs),
        _plan(runs),
        _picture(runs),
        _policies(runs),
        _latency(runs),
        _devices(runs),
        _cost(runs),
        _validation(runs),
        _steps(runs),
        _assumptions(runs),
        _repeat(runs, command),
    )
    sources = tuple(document.source for document in runs.documents)
    return Page(title or _title(runs), _lead(runs), sources, tuple(part for part in parts if part.blocks))


def _title(runs: Runs) -> str:
    if runs.pictures:
        return "What sixteen inferences buy, and what they cost"
    if runs.of(Simulation):
        return f"{runs.of(Simulation)[0].name}: what it takes and what it costs"
    if runs.of(Planned):
        return f"{runs.of(Planned)[0].name}: what to buy"
    return "Measured here" if runs.of(Measurement) else "What the policies are worth"


def _lead(runs: Runs) -> str:
    """What stands on which ground."""
    grounds = []
    if runs.of(Evaluation):
        grounds.append("Accuracy is measured with real models.")
    if runs.of(Measurement):
        grounds.append("Step times are measured on this machine.")
    if any((runs.of(Simulation), runs.of(Planned))):
        grounds.append("Latency, cost and energy of other hardware are simulated; every assumption has its source.")
    if any(map(is_rumour, _with_scenario(runs))):
        grounds.append("Rumours are called rumours.")
    return " ".join(grounds)


def _plan(runs: Runs) -> Section:
    blocks: list[Block | None] = []
    for index, plan in enumerate(runs.of(Planned)):
        blocks += [
            Bullets(f"The cheapest fleet for “{plan.name}”", tuple(_bought(plan))),
            _one_away(plan),
            figures.undominated(plan, str(index)),
            figures.tornado(plan, str(index)),
        ]
    return section("plan", "The plan", *blocks)


def _bought(plan: Planned) -> Iterator[str]:
    """What to buy, why nothing cheaper, and what would change that."""
    yield words.bought(plan)
    if plan.incomplete:
        yield f"INCOMPLETE: {plan.incomplete}."
    if plan.headroom is not None:
        yield f"Its targets hold up to about {plan.headroom:.3g} times the traffic."
    if plan.next_cheaper:
        yield f"The next cheaper fleet fails: {plan.next_cheaper}."
    yield from (f"To relax: {each.says}." for each in plan.relax)
    yield from (f"Without {each}." for each in plan.one_down)
    yield from (f"Beside it, {each}." for each in plan.break_even)


def _one_away(plan: Planned) -> Table | None:
    """With every device there, and without one of each kind of replica, where the targets ask for that."""
    shown = [metric for metric in SERVED if metric.name in plan.plan.metrics]
    rows = [(f"a replica of {model}", *_metrics(each.metrics, shown)) for model, each in plan.plan.n_minus_1.items()]
    columns = ("away", *(metric.title for metric in shown))
    return (
        table("With any one device away (N-1)", columns, [("none", *_metrics(plan.plan.metrics, shown)), *rows])
        if rows
        else None
    )


def _picture(runs: Runs) -> Section:
    blocks: list[Block] = []
    for index, picture in enumerate(runs.pictures):
        blocks.append(figures.accuracy_against_cost(picture, str(index)))
        blocks += [Text(text) for text in _unmatched(picture)]
    return section("picture", "Accuracy against cost", *blocks)


def _unmatched(picture: Picture) -> Iterator[str]:
    if picture.only_measured:
        names = "; ".join(picture.only_measured)
        yield f"Measured but not simulated in “{picture.simulation.name}”, so not in the picture: {names}."
    if picture.only_simulated:
        yield f"Simulated but not measured, so not shown: {'; '.join(picture.only_simulated)}."
    if picture.overloaded:
        yield f"Overloaded by the traffic, so without a cost per query: {'; '.join(picture.overloaded)}."


def _policies(runs: Runs) -> Section:
    blocks: list[Block | None] = []
    for index, evaluation in enumerate(runs.of(Evaluation)):
        blocks += [
            _policy_table(evaluation, runs),
            _value_model(evaluation),
            figures.reliability(evaluation, str(index)),
        ]
    return section("policies", "Policies", *blocks)


def _policy_table(evaluation: Evaluation, runs: Runs) -> Table:
    joined = [picture for picture in runs.pictures if picture.evaluation is evaluation]
    columns = (
        *("policy", "right", "inferences", "tokens per query", "time per query here"),
        *(f"$ per query, {picture.simulation.name}" for picture in joined),
        "note",
    )
    rows = [
        (*_measured(policy), *(_cost_in(picture, policy) for picture in joined), policy.note)
        for policy in evaluation.policies
    ]
    return table(f"Policies over the same {evaluation.queries} queries", columns, rows)


def _measured(policy: Measured) -> tuple[Cell, ...]:
    return (
        policy.label,
        Number.of(policy.accuracy, "share"),
        _maybe(policy.inferences_per_query, ""),
        _maybe(policy.tokens_per_query, ""),
        _maybe(policy.seconds_per_query, "s"),
    )


def _maybe(value: float | None, unit: str) -> Number | None:
    return None if value is None else Number(value, unit)


def _cost_in(picture: Picture, policy: Measured) -> Number | None:
    return next((Number.of(p.cost, "USD") for p in picture.points if p.policy.key == policy.key), None)


def _value_model(evaluation: Evaluation) -> Text | None:
    if evaluation.value_auc is None:
        return None
    auc = Number(evaluation.value_auc.value, "", evaluation.value_auc.low, evaluation.value_auc.high)
    within = evaluation.value_auc_within
    inside = f"; among the candidates of one query, {Number(within)}" if within is not None else ""
    return Text(f"The value model ranks a right candidate above a wrong one with probability {auc} (AUC){inside}.")


def _latency(runs: Runs) -> Section:
    blocks: list[Block | None] = []
    for index, simulation in enumerate(runs.of(Simulation)):
        blocks += [
            _lines(simulation),
            figures.latencies(simulation, str(index)),
            _metric_table(simulation, PERFORMANCE),
        ]
    return section("latency", "Latency", *blocks)


def _lines(simulation: Simulation) -> Table:
    rows = [
        (line.key, line.label, line.devices, line.latency_model, "; ".join(line.notes)) for line in simulation.lines
    ]
    return table(f"Simulated: {simulation.name}", ("", "what it is", "devices", "step times", "note"), rows)


def _metric_table(simulation: Simulation, metrics: Sequence[Metric]) -> Table:
    rows = [(line.key, *_values(line, metrics)) for line in simulation.lines]
    return table(f"{simulation.name}, in numbers", ("", *(metric.title for metric in metrics)), rows)


def _values(line: Line, metrics: Sequence[Metric]) -> Iterator[Number | None]:
    return _metrics(line.metrics, metrics)


def _metrics(known: Mapping[str, Estimate], metrics: Sequence[Metric]) -> Iterator[Number | None]:
    for metric in metrics:
        found = known.get(metric.name)
        yield Number.of(found, metric.unit) if found else None


def _devices(runs: Runs) -> Section:
    simulations = enumerate(runs.of(Simulation))
    return section("devices", "Devices over time", *(figures.timeline(s, str(i)) for i, s in simulations))


def _cost(runs: Runs) -> Section:
    blocks: list[Block | None] = []
    for index, simulation in enumerate(runs.of(Simulation)):
        blocks += [figures.costs(simulation, str(index)), _metric_table(simulation, MONEY)]
    return section("cost", "Cost and energy", *blocks)


def _validation(runs: Runs) -> Section:
    blocks: list[Block | None] = []
    for index, validation in enumerate(runs.of(Validation)):
        blocks += [
            figures.compared(validation, str(index)),
            table(validation.name, ("metric", "measured", "simulated", "error"), map(_compared, validation.metrics)),
            *(Text(note) for note in validation.notes),
        ]
    return section("validation", "Measured against simulated", *blocks)


def _compared(metric: Compared) -> tuple[Cell, ...]:
    error = metric.error_interval or (None if metric.error is None else Estimate(value=metric.error))
    shown = Number.of(error, "error") if error else None
    return metric.name, Number(metric.measured, metric.unit), Number.of(metric.simulated, metric.unit), shown


def _steps(runs: Runs) -> Section:
    profiles = [profile for measurement in runs.of(Measurement) for profile in measurement.profiles]
    blocks: list[Block | None] = [figures.step_times(profile, str(i)) for i, profile in enumerate(profiles)]
    return section("steps", "Step times", *blocks, _fit_table(profiles))


def _fit_table(profiles: Sequence[LatencyProfile]) -> Table | None:
    names = list(dict.fromkeys(name for profile in profiles for name in profile.residuals))
    rows = [(p.name, *(_maybe(p.residuals.get(name), "share") for name in names)) for p in profiles if p.residuals]
    return table("Error of the fit over these steps", ("model", *names), rows) if rows else None


def _assumptions(runs: Runs) -> Section:
    return section("assumptions", "Assumptions and their sources", *map(assumptions, _with_scenario(runs)))


def _repeat(runs: Runs, command: str | None) -> Section:
    repeat = Code("The command that wrote this report", command, "sh", shown=True) if command else None
    return section("repeat", "To repeat it", repeat, *(_scenario(s) for s in _with_scenario(runs) if s.scenario))


def _with_scenario(runs: Runs) -> tuple[Simulation | Planned, ...]:
    return (*runs.of(Simulation), *runs.of(Planned))


def _scenario(simulation: Simulation | Planned) -> Code:
    text = yaml.safe_dump(
        dict(simulation.scenario), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    return Code(f"The scenario “{simulation.name}”, as resolved", text, "yaml")
