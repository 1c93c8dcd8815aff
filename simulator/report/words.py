"""The sentences of the report: what was run, what sixteen inferences buy and cost, and where they don't pay."""

from __future__ import annotations

from collections.abc import Iterator

from octavo.simulator.report.document import (
    Comparison,
    Estimate,
    Evaluation,
    Line,
    Measured,
    Planned,
    Simulation,
    Validation,
)
from octavo.simulator.report.numbers import Number, digits, times, write
from octavo.simulator.report.picture import COST, Picture, Point
from octavo.simulator.report.roles import deployable, ensemble_of, inferences, single_of


def evaluated(evaluation: Evaluation) -> str:
    here = f" on {evaluation.machine['processor']}" if "processor" in evaluation.machine else ""
    return (
        f"{len(evaluation.policies)} policies answered the same {evaluation.queries} held-out queries, with "
        f"real models on ONNX Runtime{here}."
    )


def simulated(simulation: Simulation) -> str:
    described = simulation.description.rstrip(".") or simulation.lines[0].label
    count = len(simulation.lines) - 1
    beside = f", and {count} baseline{'s' * (count != 1)}" if count else ""
    return f"Scenario “{simulation.name}” was simulated: {described}{beside}."


def bought(plan: Planned) -> str:
    """What a plan says to buy, and what that costs."""
    cost = f"{write(plan.plan.usd_per_hour, 'USD')} an hour, ${plan.plan.usd_per_month:,.0f} a month"
    if not plan.feasible:
        why = "; ".join(plan.plan.missed) or plan.plan.overloaded or "a replica away is too much"
        return f"No fleet was found that meets the targets. The closest is {plan.plan.fleet}: {cost}; {why}."
    return f"Buy {plan.plan.fleet}: {cost}."


def planned(plan: Planned) -> str:
    """The plan in one sentence of the summary."""
    partly = f" The search was {plan.incomplete}." if plan.incomplete else ""
    if not plan.feasible:
        return f"“{plan.name}”: {bought(plan)}{partly}"
    return f"The cheapest fleet found for “{plan.name}” within its targets: {bought(plan)[4:]}{partly}"


def gain(evaluation: Evaluation) -> Iterator[str]:
    """The ensemble's accuracy beside that of one inference, and whom it beats."""
    best, one = ensemble_of(evaluation), single_of(evaluation)
    if one is None or one is best:
        yield f"“{best.label}” is right on {_share(best.accuracy)}."
        return
    points = 100 * (best.accuracy.value - one.accuracy.value)
    yield (
        f"“{best.label}” is right on {_share(best.accuracy)} of the queries, “{one.label}” on {_share(one.accuracy)}: "
        f"{digits(abs(points), 2)} points {'more' if points > 0 else 'fewer'}.{_settled(evaluation, best, one)}"
    )
    if best.tokens_per_query and one.tokens_per_query:
        yield f"It writes {times(best.tokens_per_query / one.tokens_per_query)} the tokens."
    if won := [f"“{c.rival}” by {_points(c.difference)}" for c in evaluation.comparisons if _sign(c) > 0]:
        yield f"Query by query it is right more often than {_listed(won)}."
    yield from _room_above(evaluation, best)


def _settled(evaluation: Evaluation, best: Measured, one: Measured) -> str:
    """What the intervals say, where no comparison query by query says it better."""
    if evaluation.comparisons:
        return ""
    return (
        " The intervals are apart." if _apart(best.accuracy, one.accuracy) else " The intervals overlap: not settled."
    )


def _sign(comparison: Comparison) -> int:
    """1 where the ensemble is right more often, -1 where its rival is, 0 where nothing is shown."""
    low, high = comparison.difference.low, comparison.difference.high
    if low is None or high is None:
        return 0
    return 1 if low > 0 else -1 if high < 0 else 0


def _points(difference: Estimate) -> str:
    """Percentage points, larger one way or the other, with their interval."""
    sign = -1 if difference.value < 0 else 1
    value, *ends = (sign * 100 * v for v in (difference.value, difference.low, difference.high) if v is not None)
    interval = " to ".join(digits(end, 2) for end in sorted(ends))
    return f"{digits(value, 2)} points" + (f" ({interval})" if ends else "")


def _room_above(evaluation: Evaluation, best: Measured) -> Iterator[str]:
    """What a perfect choice among the same candidates would reach."""
    for oracle in evaluation.policies:
        if oracle not in deployable(evaluation) and oracle.accuracy.value > best.accuracy.value:
            yield (
                f"A right answer was among the candidates for {write(oracle.accuracy.value, 'share')} of the queries: "
                "what lies between is lost in choosing."
            )


def against(evaluation: Evaluation) -> Iterator[str]:
    """Rivals that are as accurate: as compared query by query, or else by what the evaluation says, or the table."""
    if evaluation.comparisons:
        yield from (_lost(comparison) for comparison in evaluation.comparisons if _sign(comparison) <= 0)
        return
    yield from evaluation.statements or _as_accurate(evaluation)


def _lost(comparison: Comparison) -> str:
    ratio = comparison.tokens_ratio
    alike = ratio is not None and 0.95 < ratio < 1.05
    tokens = f"; the ensemble writes {'as many' if alike else times(ratio) + ' its'} tokens" if ratio else ""
    if _sign(comparison) < 0:
        return f"“{comparison.rival}” is right more often, by {_points(comparison.difference)}{tokens}."
    return f"No difference from “{comparison.rival}” is shown: {_points(comparison.difference)}{tokens}."


def _as_accurate(evaluation: Evaluation) -> Iterator[str]:
    best = ensemble_of(evaluation)
    for other in deployable(evaluation):
        cheap = inferences(other) <= inferences(best)
        if other is not best and cheap and other.accuracy.value >= best.accuracy.value:
            yield f"“{other.label}” is right on {_share(other.accuracy)}, with no more inferences a query."


def price(picture: Picture) -> Iterator[str]:
    """What the ensemble costs beside one inference, and what a further right answer costs."""
    best, one = _pair(picture)
    where = f"Simulated in scenario “{picture.simulation.name}”"
    if best and one:
        ratio = times(best.cost.value / one.cost.value)
        yield f"{where}, “{best.label}” costs {_usd(best)} a query, {ratio} the {_usd(one)} of “{one.label}”."
        if (more := best.accuracy.value - one.accuracy.value) > 0:
            extra = write((best.cost.value - one.cost.value) / more, "USD")
            yield f"Each further right answer costs {extra}: the ensemble pays where one is worth more than that."
    elif best:
        yield f"{where}, “{best.label}” costs {_usd(best)} a query."


def _pair(picture: Picture) -> tuple[Point | None, Point | None]:
    """The ensemble and the single inference, where they are in the picture and not the same."""
    found = {point.policy.key: point for point in picture.points}
    best, one = ensemble_of(picture.evaluation), single_of(picture.evaluation)
    return found.get(best.key), found.get(one.key) if one and one is not best else None


def against_in(picture: Picture) -> Iterator[str]:
    """What is as accurate as the ensemble for no more money."""
    best, _ = _pair(picture)
    if best and (better := picture.better_than(best)):
        names = _listed([f"“{b.label}” ({write(b.accuracy.value, 'share')}, {_usd(b)})" for b in better])
        yield f"At no higher cost in scenario “{picture.simulation.name}”, as accurate or better: {names}."


def beside_baselines(simulation: Simulation) -> Iterator[str]:
    """The scenario's cost and latency, and how many times each baseline's cost that is."""
    first, *others = simulation.lines
    said = [
        text.format(write(first.metrics[name].value, unit))
        for name, unit, text in ((COST, "USD", "{} a query"), ("latency_p95", "s", "95 % answered within {}"))
        if name in first.metrics
    ]
    ratios = [f"{ratio} {line.key}" for line in others if (ratio := _ratio(first, line))]
    beside = f"; in cost, {_listed(ratios)}" if ratios else ""
    if said:
        yield f"Scenario “{simulation.name}”: {', '.join(said)}{beside}."


def _ratio(one: Line, other: Line) -> str | None:
    mine, yours = one.metrics.get(COST), other.metrics.get(COST)
    if one.overloaded or other.overloaded:
        return None
    return times(mine.value / yours.value) if mine and yours and yours.value else None


def overloaded(simulation: Simulation) -> Iterator[str]:
    """Lines that do not keep up, and how that shows."""
    for line in simulation.lines:
        if line.overloaded:
            yield f"{line.key} does not keep up with the traffic of “{simulation.name}”: {line.overloaded}."


def model_error(simulation: Simulation) -> Iterator[str]:
    """Where the step times come from, and whether the intervals know of their error."""
    first = simulation.lines[0]
    if first.latency_model and first.band is not None:
        less, more = write(first.band.shorter, "share"), write(first.band.longer, "share")
        said = "hold that error" if "band" in first.intervals else "are over seeds and do not hold that error"
        yield (
            f"Step times of “{simulation.name}”: {first.latency_model}; "
            f"steps may take {less} less or {more} more time. The intervals {said}."
        )


def validated(validation: Validation) -> Iterator[str]:
    """How many metrics were within 10 %, and the one that is farthest off."""
    errors = [(abs(c.error), c) for c in validation.metrics if c.error is not None]
    if errors:
        _, worst = max(errors, key=lambda pair: pair[0])
        kept = sum(size <= 0.1 for size, _ in errors)
        yield (
            f"Simulated against measured, {validation.name}: {kept} of {len(errors)} metrics within 10 %. "
            f"The worst, {worst.name}, is off by {write(worst.error or 0.0, 'error')}."
        )


def _apart(one: Estimate, other: Estimate) -> bool:
    ends = (one.low, one.high, other.low, other.high)
    if None in ends:
        return False
    low, high, low_other, high_other = (float(end) for end in ends if end is not None)
    return low > high_other or low_other > high


def _share(estimate: Estimate) -> str:
    return str(Number(estimate.value, "share", estimate.low, estimate.high))


def _usd(point: Point) -> str:
    return write(point.cost.value, "USD")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
