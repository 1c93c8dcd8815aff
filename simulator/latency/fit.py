"""Fitting the coefficients of the step-time physics to what was measured of real servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace

import numpy as np

from octavo.runtime.core.scheduler import Chunk, Prompt
from octavo.simulator.estimate import Floats
from octavo.simulator.latency.model import LatencyModel
from octavo.simulator.latency.physics import Coefficients

FIRM = 0.05
"""How firmly a coefficient that the data says little about keeps to where it starts."""
FIRM_LAYER = 0.5
"""A model's layers and a framework's steps are hard to tell apart, but a layer's kernels were measured one by one."""
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
    firm[_KEYS.index("layer")], firm[len(_KEYS) :] = FIRM_LAYER, FIRM_HOST

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
    model: LatencyModel, batch: float, prompt: int, answer: int, chunk: int = 8192, capacity: float = float("inf")
) -> float:
    """Seconds per output token of `batch` clients that always have a request running, in closed form.

    While a request decodes, each of the others is replaced once: that many steps also prefill a prompt, or a chunk of
    one. `capacity` tokens of KV bound how many run.
    """
    running = max(1, round(min(batch, capacity / (prompt + 0.6 * answer))))
    parts = max(1, -(-prompt // chunk))
    mixed = min(running * parts, answer)
    tokens = max(1, round(running * prompt / mixed))
    context = round(running * (prompt + answer / 2))
    prompts, rest = divmod(tokens, min(prompt, chunk))
    lengths = [min(prompt, chunk)] * prompts + [rest] * (rest > 0)
    joint = model.mixed(running, context, [Chunk(Prompt(0, length, ()), 0, length) for length in lengths])
    share = mixed / answer
    return (1 - share) * model.decode(running, context).seconds + share * joint
