"""What a run comes to: percentiles, rates, shares and costs, with the queries of the warm-up left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from octavo.profiles.scenario import Scenario, Targets
from octavo.profiles.workload import AtOnce, ClosedLoop
from octavo.runtime.core.trace import QueryRecord
from octavo.simulator.cost import Bill
from octavo.simulator.estimate import Estimate, Floats, by_batches, over_seeds

PERCENTILES = (50, 95, 99)


@dataclass(slots=True)
class Sample:
    """What one seed's run left behind, in order of arrival; the warm-up is taken out."""

    latency: Floats
    ttft: Floats
    tpot: Floats
    numbers: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)


def window(scenario: Scenario, queries: Sequence[QueryRecord], *, overloaded: bool = False) -> float:
    """Seconds that costs and rates are counted over: while queries arrive, or until all are done where they wait.

    An overloaded fleet works on after the last arrival, and that is paid for too.
    """
    ended = max((query.ended for query in queries if query.ended is not None), default=0.0)
    if overloaded or isinstance(scenario.workload.arrivals, ClosedLoop | AtOnce):
        return ended
    return max(scenario.workload.duration or 0.0, queries[-1].arrival) or ended


def sample(
    scenario: Scenario, queries: Sequence[QueryRecord], tpot: Sequence[float], bill: Bill, busy: float, seconds: float
) -> Sample:
    """Of one run that was counted over so many seconds; `busy` is the mean utilisation of its devices."""
    counted = queries[int(scenario.workload.warmup * len(queries)) :]
    answered = [q for q in counted if q.outcome == "answered" and q.ended is not None]
    latency = np.array([q.latency for q in answered], dtype=float)
    ttft = np.array([q.ttft for q in answered if q.ttft is not None], dtype=float)
    found = Sample(latency, ttft, np.array(tpot, dtype=float))
    known = [q.correct for q in answered if q.correct is not None]
    tokens = sum(q.answer_tokens for q in queries)
    count = len(queries)
    found.numbers = {
        "throughput": _rate(queries, seconds),
        "goodput": _goodput(scenario, counted, seconds / count * len(counted)),
        "availability": len(answered) / len(counted),
        "degraded": _mean([q.degraded for q in answered]),
        "barrier_wait": _mean([q.barrier_wait for q in answered]),
        "tokens_per_query": sum(q.total_tokens for q in queries) / count,
        "wasted_tokens_per_query": sum(q.wasted_tokens for q in queries) / count,
        "answer_tokens_per_query": tokens / count,
        "utilisation": busy,
        "usd_per_query": bill.total / count,
        "usd_per_hour": bill.total / seconds * 3600,
        "joules_per_query": bill.joules / count,
        "kwh": bill.kwh,
        "watts": bill.joules / seconds,
    }
    if tokens:
        found.numbers["usd_per_million_tokens"] = bill.total / tokens * 1e6
    if known:
        found.numbers["accuracy"] = _mean(known)
    if bill.grams is not None:
        found.numbers["grams_co2e_per_query"] = bill.grams / count
    found.costs = {what: usd / count for what, usd in bill.usd.items() if usd}
    return found


def _rate(queries: Sequence[QueryRecord], seconds: float) -> float:
    """Queries answered per second while queries came."""
    return sum(q.outcome == "answered" and q.ended is not None and q.ended <= seconds for q in queries) / seconds


def _goodput(scenario: Scenario, queries: Sequence[QueryRecord], seconds: float) -> float:
    """Answered queries per second that meet the latency targets, each on its own."""
    answered = [q for q in queries if q.outcome == "answered"]
    latency, ttft = (np.array([getattr(q, name) or 0.0 for q in answered]) for name in ("latency", "ttft"))
    return within(scenario.targets, latency, ttft) / seconds if seconds else 0.0


def within(targets: Targets, latency: Floats, ttft: Floats) -> int:
    """How many of these queries meet the latency targets, each on its own."""
    most = min((t for t in (targets.latency_p50, targets.latency_p95, targets.latency_p99) if t), default=np.inf)
    first = targets.ttft_p95 or np.inf
    return int(np.count_nonzero((latency <= most) & (ttft <= first)))


def _mean(values: Sequence[float | bool]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def estimates(samples: Sequence[Sample]) -> dict[str, Estimate]:
    """Every metric over the seeds; over one seed's batches where there is only one."""
    found: dict[str, Estimate] = {}
    for name in ("latency", "ttft", "tpot"):
        values: list[Floats] = [getattr(one, name) for one in samples]
        if all(len(one) for one in values):
            found[f"{name}_mean"] = _estimate(values, _mean_of)
            found |= {f"{name}_p{p}": _estimate(values, partial(_percentile, p)) for p in PERCENTILES}
    for name in samples[0].numbers:
        found[name] = over_seeds([one.numbers[name] for one in samples if name in one.numbers])
    return found


def _percentile(p: int, values: Floats) -> float:
    return float(np.percentile(values, p))


def _mean_of(values: Floats) -> float:
    return float(np.mean(values))


def _estimate(values: Sequence[Floats], statistic: Callable[[Floats], float]) -> Estimate:
    if len(values) == 1:
        return by_batches(values[0], statistic)
    return over_seeds([float(statistic(one)) for one in values])


def mean_costs(samples: Sequence[Sample]) -> Mapping[str, float]:
    """USD a query by what is paid for."""
    names = dict.fromkeys(name for one in samples for name in one.costs)
    return {name: float(np.mean([one.costs.get(name, 0.0) for one in samples])) for name in names}
