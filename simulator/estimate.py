"""An estimate: a value and its 95 % interval, over seeds by Student's t, over one long run by batch means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Floats = npt.NDArray[np.float64]
BATCHES = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value; None bounds where nothing says how sure it is."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def to_json(self) -> dict[str, float]:
        bounds = {} if self.low is None or self.high is None else {"low": tidy(self.low), "high": tidy(self.high)}
        return {"value": tidy(self.value), **bounds}


def tidy(value: float) -> float:
    """Twelve significant digits: what is the same on every machine."""
    return float(f"{value:.12g}")


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean and Student-t interval of independent runs."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean)
    half = float(stdtrit(len(values) - 1, 0.975)) * float(np.std(values, ddof=1)) / sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def by_batches(sample: Floats, statistic: Callable[[Floats], float]) -> Estimate:
    """The statistic of one run's sample in order of time, its interval from that of consecutive batches."""
    whole = float(statistic(sample))
    if len(sample) < 10 * BATCHES:
        return Estimate(whole)
    parts = [float(statistic(part)) for part in np.array_split(sample, BATCHES)]
    half = over_seeds(parts).half_width
    return Estimate(whole) if half is None or not isfinite(half) else Estimate(whole, whole - half, whole + half)
