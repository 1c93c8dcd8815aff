"""From a value model's logit to a probability of being right: Platt's scale and shift, and how well it ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PULL = 1e-3  # a weak prior on the scale, so that separable candidates have a finite one


@dataclass(frozen=True, slots=True)
class Calibration:
    """score = sigmoid(scale * logit + shift); AUC over all candidates, and within a query where both kinds occur."""

    scale: float
    shift: float
    auc: float
    auc_within_query: float
    candidates: int


def calibrate(logits: Tensor, right: Tensor) -> Calibration:
    """Fit on logits and verdicts, both of shape (queries, candidates of a query)."""
    scale, shift = _platt(logits.flatten(), right.flatten())
    within = [auc(row, verdicts) for row, verdicts in zip(logits, right, strict=True) if 0 < verdicts.sum() < len(row)]
    mean_within = sum(within) / len(within) if within else 0.5
    return Calibration(scale, shift, auc(logits.flatten(), right.flatten()), mean_within, logits.numel())


def auc(scores: Tensor, right: Tensor) -> float:
    """The chance that a right candidate scores above a wrong one; a tie counts half, and so does nothing to compare."""
    good, bad = scores[right].contiguous(), scores[~right].sort().values
    if not len(good) or not len(bad):
        return 0.5
    below = torch.searchsorted(bad, good) + torch.searchsorted(bad, good, right=True)
    return float(below.double().mean() / (2 * len(bad)))


def _platt(logits: Tensor, right: Tensor) -> tuple[float, float]:
    fitted = torch.tensor([1.0, 0.0], dtype=torch.double, requires_grad=True)
    targets = right.double()
    optimizer = torch.optim.LBFGS([fitted], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        off = F.binary_cross_entropy_with_logits(fitted[0] * logits.double() + fitted[1], targets)
        total = off + PULL * (fitted[0] - 1) ** 2
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scale, shift = fitted.tolist()
    return scale, shift
