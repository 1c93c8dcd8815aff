"""The first section: the ensemble in four numbers, then in sentences, then where it does not pay."""

from __future__ import annotations

from collections.abc import Iterator

from octavo.simulator.report import words
from octavo.simulator.report.assumptions import is_rumour
from octavo.simulator.report.blocks import Bullets, Section, Stats, section
from octavo.simulator.report.document import Compared, Evaluation, Planned, Simulation, Validation
from octavo.simulator.report.numbers import times, write
from octavo.simulator.report.picture import COST
from octavo.simulator.report.roles import ensemble_of, single_of
from octavo.simulator.report.runs import Runs

_AGAINST = "Where the ensemble does not pay"


def summary(runs: Runs) -> Section:
    """What was run, what it buys and costs, where it does not pay, how far to trust all that."""
    told = (
        ("What was run", _run(runs)),
        ("What sixteen inferences buy", (s for e in runs.of(Evaluation) for s in words.gain(e))),
        ("What to buy", map(words.planned, runs.of(Planned))),
        ("What they cost", _costs(runs)),
        (_AGAINST, _against(runs)),
        ("How far to trust it", _trust(runs)),
    )
    lists = ((title, tuple(dict.fromkeys(sentences))) for title, sentences in told)
    bullets = (Bullets(title, items, strong=title == _AGAINST) for title, items in lists if items)
    return section("summary", "Summary", _headline(runs), *bullets)


def _run(runs: Runs) -> Iterator[str]:
    yield from map(words.evaluated, runs.of(Evaluation))
    yield from map(words.simulated, runs.of(Simulation))


def _costs(runs: Runs) -> Iterator[str]:
    """Joined with accuracy where it can be; otherwise beside the scenario's baselines."""
    joined = [picture.simulation for picture in runs.pictures]
    for picture in runs.pictures:
        yield from words.price(picture)
    for simulation in runs.of(Simulation):
        if simulation not in joined:
            yield from words.beside_baselines(simulation)
        yield from words.overloaded(simulation)


def _against(runs: Runs) -> Iterator[str]:
    for evaluation in runs.of(Evaluation):
        yield from words.against(evaluation)
    for picture in runs.pictures:
        yield from words.against_in(picture)


def _trust(runs: Runs) -> Iterator[str]:
    for validation in runs.of(Validation):
        yield from words.validated(validation)
    for simulation in runs.of(Simulation):
        yield from words.model_error(simulation)
    if rumours := [simulation.name for simulation in runs.of(Simulation) if is_rumour(simulation)]:
        yield f"Built on a rumour that nobody who knows has confirmed: {', '.join(rumours)}."


def _headline(runs: Runs) -> Stats | None:
    """The ensemble in at most four numbers."""
    items = [*_gain(runs), *_bought(runs), *_price(runs), *_error(runs)]
    return Stats(tuple(items[:4])) if items else None


def _gain(runs: Runs) -> Iterator[tuple[str, str, str]]:
    for evaluation in runs.of(Evaluation)[:1]:
        best, one = ensemble_of(evaluation), single_of(evaluation)
        beside = f"{one.label}: {write(one.accuracy.value, 'share')}" if one else f"of {evaluation.queries} queries"
        yield f"right, {best.label}", write(best.accuracy.value, "share"), beside


def _bought(runs: Runs) -> Iterator[tuple[str, str, str]]:
    for plan in runs.of(Planned)[:1]:
        said = "planned" if plan.feasible else "the closest, but it misses its targets"
        yield f"an hour, {said}, {plan.name}", write(plan.plan.usd_per_hour, "USD"), plan.plan.fleet


def _price(runs: Runs) -> Iterator[tuple[str, str, str]]:
    for picture in runs.pictures[:1]:
        costs = {point.policy.key: point.cost.value for point in picture.points}
        best, one = ensemble_of(picture.evaluation), single_of(picture.evaluation)
        if best.key in costs:
            ratio = costs[best.key] / costs[one.key] if one and one.key in costs else None
            beside = f"{times(ratio)} “{one.label}”" if one and ratio else "simulated"
            yield f"a query, {picture.simulation.name}", write(costs[best.key], "USD"), beside
    joined = {picture.simulation.name for picture in runs.pictures}
    for simulation in runs.of(Simulation):
        metrics = simulation.lines[0].metrics
        if simulation.name not in joined and COST in metrics:
            yield f"a query, {simulation.name}", write(metrics[COST].value, "USD"), "simulated"


def _error(runs: Runs) -> Iterator[tuple[str, str, str]]:
    for validation in runs.of(Validation)[:1]:
        first = _first(validation)
        if first and first.error is not None:
            yield (
                f"simulated {first.name}, error",
                write(first.error, "error"),
                f"measured {write(first.measured, first.unit)}",
            )


def _first(validation: Validation) -> Compared | None:
    """The median latency, or else the first metric that has an error."""
    known = [metric for metric in validation.metrics if metric.error is not None]
    return next((metric for metric in known if metric.metric == "latency_p50"), known[0] if known else None)
