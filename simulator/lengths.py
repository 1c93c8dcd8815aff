"""Draws of prompt and answer lengths from a workload's distributions, by their quantile functions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from octavo.profiles.errors import ConfigError
from octavo.profiles.workload import Constant, Empirical, Lengths, Lognormal, Uniform, Workload

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def quantile(lengths: Lengths, p: Floats) -> Ints:
    """Tokens at probabilities p; a higher p is never fewer tokens, so that correlated draws stay correlated."""
    match lengths:
        case Constant(tokens=tokens):
            drawn = np.full(p.shape, float(tokens))
        case Uniform(min=low, max=high):
            drawn = np.floor(low + p * (high - low + 1))
            drawn = np.minimum(drawn, high)
        case Lognormal(mean=mean, cv=cv, min=low, max=top):
            variance = np.log1p(cv**2)
            drawn = np.exp(np.log(mean) - variance / 2 + np.sqrt(variance) * ndtri(p))
            drawn = np.clip(np.rint(drawn), low, top)
        case Empirical(quantiles=table):
            at, tokens_at = zip(*table, strict=True)
            drawn = np.maximum(np.rint(np.interp(p, at, tokens_at)), 1)
        case _:
            raise ConfigError("workload: lengths of kind trace come from the arrivals' trace file")
    return np.asarray(drawn, dtype=np.int64)


def draw_lengths(
    workload: Workload, queries: int, answers: int, prompts: np.random.Generator, outputs: np.random.Generator
) -> tuple[Ints, Ints]:
    """Prompt lengths, and `answers` answer lengths for each (rows: queries).

    The answers of a query depend on each other only through its prompt's length (`length_correlation`, a Gaussian
    copula). Two streams: more answers per query do not change the prompts.
    """
    z = prompts.standard_normal(queries)
    r = workload.length_correlation
    noise = outputs.standard_normal((answers, queries)).T  # more answers leave those before them alone
    y = r * z[:, None] + np.sqrt(1 - r * r) * noise
    return (
        quantile(workload.prompt_tokens, np.asarray(ndtr(z))),
        quantile(workload.answer_tokens, np.asarray(ndtr(y))),
    )
