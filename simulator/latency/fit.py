"""Fitting the coefficients of the step-time physics to what was measured of real servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from math import ceil, inf

import numpy as np

from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.estimate import Floats
from octavo.simulator.latency.model import LatencyModel
from octavo.simulator.latency.physics import Coefficients

FIRM = 0.05
"""How firmly a coefficient that the data says little about keeps to where it starts."""
FIRM_MEASURED = 0.5
"""The same of what was measured one by one, where servers' steps hardly tell one from the other."""
MEASURED = ("layer", "weights", "compute", "kv", "attention", "halved")
FIRM_TAKEN = 10.0
"""Of `blocks`, which is not fitted: the points that have such weights are of one framework, and its host's as well."""
FIRM_HOST = 0.2
"""Frameworks differ, but not by much: what is known of one says something of another that was not measured."""
HOST = ("step", "sequence")
"""What each framework has its own of: its host's seconds."""

Predict = Callable[[Coefficients], float]
"""What a measurement would be under some coefficients."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Coefficients that all frameworks share, and what the host of each adds in their place."""

    shared: Coefficients
    hosts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def of(self, framework: str) -> Coefficients:
        """Of a framework that was not in the fit, the shared ones."""
        return replace(self.shared, **self.hosts.get(framework, {}))


def fit_coefficients(
    predictions: Sequence[Predict], measured: Sequence[float], frameworks: Sequence[str] = ()
) -> Fitted:
    """Least squares of the logarithm of the error, robust to outliers (soft L1), all coefficients positive.

    `frameworks` says under which each was measured; without them one host is fitted with the rest.
    """
    from scipy.optimize import least_squares  # slow to import, seldom used

    names = sorted(set(frameworks))
    start = Coefficients()
    begin = np.log([*astuple(start), *(getattr(start, name) for _ in names for name in HOST)])
    aim = np.log(measured)
    firm = np.full(len(begin), FIRM)
    firm[[_KEYS.index(name) for name in MEASURED]], firm[_KEYS.index("blocks")] = FIRM_MEASURED, FIRM_TAKEN
    firm[len(_KEYS) :] = FIRM_HOST

    def residuals(logs: Floats) -> Floats:
        found = _unpacked(np.exp(logs), names)
        each = {name: found.of(name) for name in names}
        under = [each[name] for name in frameworks] or [found.shared] * len(aim)
        errors = np.log([predict(c) for predict, c in zip(predictions, under, strict=True)]) - aim
        return np.concatenate([errors, firm * (logs - begin)])

    return _unpacked(np.exp(least_squares(residuals, begin, loss="soft_l1", f_scale=0.1).x), names)


_KEYS = [each.name for each in fields(Coefficients)]


def _unpacked(values: Floats, names: Sequence[str]) -> Fitted:
    shared = Coefficients(**dict(zip(_KEYS, map(float, values), strict=False)))
    own = values[len(_KEYS) :].reshape(len(names), len(HOST))
    hosts = {name: dict(zip(HOST, map(float, row), strict=True)) for name, row in zip(names, own, strict=True)}
    return Fitted(shared, hosts)


def closed_loop_tpot(
    model: LatencyModel, batch: float, prompt: int, answer: int, chunk: int = 8192, capacity: float = inf
) -> float:
    """Seconds per output token of `batch` clients that always have a request running, in closed form.

    While a request decodes, each of the others is replaced once: that many steps also prefill a prompt, or a chunk of
    one. `capacity` tokens of KV bound how many run.
    """
    running = _running(batch, prompt, answer, capacity)
    context = round(running * (prompt + answer / 2))
    decode = model.decode(running, context).seconds
    mixed = min((running - 1) * max(1, -(-prompt // chunk)), answer)
    if not mixed:
        return decode
    tokens = max(1, round((running - 1) * prompt / mixed))
    prompts, rest = divmod(tokens, min(prompt, chunk))
    lengths = [min(prompt, chunk)] * prompts + [rest] * (rest > 0)
    joint = model.mixed(running, context, [Chunk(Prompt(0, length, ()), 0, length) for length in lengths])
    return decode + mixed / answer * (joint - decode)


def prompts_first_tpot(
    model: LatencyModel,
    batch: float,
    prompt: int,
    answer: int,
    chunk: int = 8192,
    capacity: float = inf,
    *,
    in_step: bool = False,
) -> float:
    """The same of a server where prompts go before decodes, which stand still meanwhile, in closed form.

    Clients `in_step` begin and end together: a request waits for the prompts that are computed after its own, half of
    them in the mean. Otherwise it waits once for the prompt of each of the others. Those that come during one decode
    share a step: of a Poisson number of mean m that is not zero, m / (1 - exp(-m)).
    """
    running = _running(batch, prompt, answer, capacity)
    decode = model.decode(running, round(running * (prompt + answer / 2))).seconds
    each, parts = min(prompt, chunk), max(1, -(-prompt // chunk))
    fit = max(1, chunk // each)
    if in_step:
        steps = ceil(running * parts / fit)
        return decode + (steps - 1) / 2 * _prompts(model, min(fit, running), each) / answer
    others = (running - 1) / answer
    together = min(fit, max(1, round(others / -np.expm1(-others)))) if others else 1
    return decode + others * parts * _prompts(model, together, each) / together


def _running(batch: float, prompt: int, answer: int, capacity: float) -> int:
    return max(1, round(min(batch, capacity / (prompt + 0.6 * answer))))


def _prompts(model: LatencyModel, count: int, tokens: int) -> float:
    """Seconds of a step that prefills so many prompts and nothing else."""
    return model.mixed(0, 0, [Chunk(Prompt(0, tokens, ()), 0, tokens)] * count)
