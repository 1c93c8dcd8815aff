"""The training loops' common part, and how a decoder is fitted to right answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from octavo.exporters.train.alphabet import answer_rows, prompt_rows
from octavo.exporters.train.models import Network
from octavo.exporters.train.problems import Problem, take
from octavo.exporters.train.recipe import Course

Report = Callable[[float, float | None], None]  # told the share done and the loss
REPORT_EVERY = 10  # steps


def fit(parameters: Iterable[Parameter], course: Course, loss_of: Callable[[], Tensor], report: Report) -> float:
    """Run a course of AdamW on `loss_of`, which draws its own batch; returns the mean loss of the last tenth."""
    fitted = list(parameters)
    optimizer = torch.optim.AdamW(fitted, lr=course.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    losses: list[float] = []
    for step in range(course.steps):
        for group in optimizer.param_groups:
            group["lr"] = course.rate_at(step)
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(fitted, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % REPORT_EVERY == 0 and step + 1 < course.steps:
            report((step + 1) / course.steps, losses[-1])
    last = losses[-max(1, course.steps // 10) :]
    return sum(last) / len(last)


def fit_decoder(model: Network, course: Course, problems: Iterator[Problem], batch: int, report: Report) -> float:
    """Teach a decoder the answers of the problems; the prompts themselves carry no loss."""
    return fit(model.parameters(), course, lambda: _answer_loss(model, take(problems, batch)), report)


def _answer_loss(model: Network, problems: list[Problem]) -> Tensor:
    prompts, answers = prompt_rows(problems), answer_rows(problems)
    rows = torch.cat([prompts, answers[:, :-1]], 1)
    hidden = model.model(rows, use_cache=False).last_hidden_state[:, prompts.shape[1] - 1 :]
    return F.cross_entropy(model.lm_head(hidden).flatten(0, 1), answers.flatten())
