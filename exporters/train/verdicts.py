"""How the value model learns to check: candidates of every expert, judged token by token by the exact verifier.

As in "Training Verifiers to Solve Math Word Problems" (Cobbe et al. 2021, arXiv:2110.14168) the verdict is asked for
after every token, and the trunk goes on learning to predict right answers: comparing what was written with what
would have been expected is then a small step for the layers on top.

The network reads `bos`, prompt, answer and `eos`: the prompt as the tokenizer encodes it, then the tokens as the
expert generated them. The verdict on the whole is the logit at the last token that is not `pad`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from octavo.exporters.train.alphabet import PAD, SPECIAL, answer_rows, prompt_rows
from octavo.exporters.train.fitting import Report, fit
from octavo.exporters.train.models import Network
from octavo.exporters.train.problems import Problem, draw, take
from octavo.exporters.train.recipe import Recipe
from octavo.exporters.train.sampling import ROWS, sample


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of token ids: what was asked, what was written, what would have been right."""

    prompts: Tensor
    answers: Tensor
    references: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: Tensor) -> Candidates:
        return Candidates(self.prompts[rows], self.answers[rows], self.references[rows])

    @property
    def right_so_far(self) -> Tensor:
        """1 for each token up to which the answer is right, 0 from the first wrong one."""
        return (self.answers == self.references).long().cumprod(1)


def join(parts: Sequence[Candidates]) -> Candidates:
    return Candidates(
        torch.cat([part.prompts for part in parts]),
        torch.cat([part.answers for part in parts]),
        torch.cat([part.references for part in parts]),
    )


def ask(expert: Network, problems: Sequence[Problem], recipe: Recipe, seed: int) -> Candidates:
    """The expert's samples for each problem, one after the other."""
    prompts = prompt_rows(problems).repeat_interleave(recipe.samples, 0)
    references = answer_rows(problems).repeat_interleave(recipe.samples, 0)
    answers = sample(expert, prompts, recipe.new_tokens, recipe.temperature, seed).tokens
    return Candidates(prompts, answers, references)


def right(problems: Sequence[Problem]) -> Candidates:
    references = answer_rows(problems)
    return Candidates(prompt_rows(problems), references, references)


def corrupted(problems: Sequence[Problem], random: Random) -> Candidates:
    """Right answers with one digit changed: the nearest misses, whatever the experts are good at."""
    made = right(problems)
    answers = made.answers.clone()
    for row in answers:
        place = random.randrange(len(row) - 1)
        row[place] = random.choice([digit for digit in range(len(SPECIAL), len(SPECIAL) + 10) if digit != row[place]])
    return Candidates(made.prompts, answers, made.references)


def fit_value(value: Network, decoder: Network, candidates: Candidates, recipe: Recipe, report: Report) -> float:
    """Teach a value model grown from `decoder`; its batches are sampled, corrupted and right answers in equal parts."""
    norm = copy.deepcopy(decoder.model.norm)  # reads the trunk's predictions while training, and is not kept
    batches = _batches(candidates, recipe)

    def loss() -> Tensor:
        return _loss(value, norm, recipe.shape.layers, next(batches))

    return fit([*value.parameters(), *norm.parameters()], recipe.value.course, loss, report)


def _batches(candidates: Candidates, recipe: Recipe) -> Iterator[Candidates]:
    random, share = Random(f"{recipe.seed} value"), recipe.batch // 2
    fresh = draw(random, recipe.digits, "train")
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        for rows in torch.split(torch.randperm(len(candidates), generator=generator), share):
            yield join([candidates[rows], corrupted(take(fresh, share), random), right(take(fresh, share))])


def _loss(value: Network, norm: Network, trunk: int, batch: Candidates) -> Tensor:
    rows = torch.cat([batch.prompts, batch.answers], 1)
    out = value.model(rows, use_cache=False, output_hidden_states=True)
    first = batch.prompts.shape[1]
    logits = value.score(out.last_hidden_state[:, first:])[..., 0]
    predicted = F.linear(norm(out.hidden_states[trunk][:, first - 1 : -1]), value.model.embed_tokens.weight)
    return _verdict_loss(logits, batch) + _prediction_loss(predicted, batch)


def _verdict_loss(logits: Tensor, batch: Candidates) -> Tensor:
    """The last token's verdict, and every verdict up to the first error, with right and wrong weighing the same."""
    good = batch.right_so_far
    losses = F.binary_cross_entropy_with_logits(logits, good.float(), reduction="none")
    last = (batch.answers != PAD).sum(1, keepdim=True) - 1
    whole = losses.gather(1, last).mean()
    still_right, first_wrong = losses[good == 1], losses[_reached(good) * (1 - good) == 1]
    return whole + (still_right.mean() + first_wrong.mean()) / 2


def _prediction_loss(logits: Tensor, batch: Candidates) -> Tensor:
    """Next-token loss of the right answer, wherever what was written so far is right."""
    losses = F.cross_entropy(logits.flatten(0, 1), batch.references.flatten(), reduction="none")
    return losses[_reached(batch.right_so_far).flatten() == 1].mean()


def _reached(right_so_far: Tensor) -> Tensor:
    """1 up to and with the first wrong token."""
    return F.pad(right_so_far[:, :-1], (1, 0), value=1)


@torch.no_grad()
def logits_of(value: Network, candidates: Candidates) -> Tensor:
    """One logit per candidate, by the way that every user of the checkpoint takes."""
    rows = torch.cat([candidates.prompts, candidates.answers], 1)
    return torch.cat([value(input_ids=part).logits[:, 0] for part in torch.split(rows, ROWS)])
