"""A value model grown from a decoder: its trunk, perhaps new layers on top, and one logit, taught by verdicts.

As in "Training Verifiers to Solve Math Word Problems" (Cobbe et al. 2021, arXiv:2110.14168) the verdict is asked for
after every token of an answer, and the trunk goes on learning to write the right answers.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from octavo.exporters.checkpoint import Array
from octavo.exporters.package import COPIED
from octavo.exporters.train.fitting import fit
from octavo.exporters.train.judged import Judged, Parts, Rows, batch
from octavo.exporters.train.learning import Learning
from octavo.exporters.train.models import Network
from octavo.exporters.train.progress import Progress, Watch
from octavo.exporters.train.recipe import Course

ROWS = 64  # candidates that are judged together
NARROW = 256  # hidden size below which threads wait for each other more than they compute
QUIET = 0.1  # of their size at the start are the new layers' weights that write to the stream


def fit_trunk(
    trunk: Path, parts: Parts, folder: Path, learning: Learning, course: Course, watch: Watch
) -> tuple[Array, Array]:
    """Write the value model to `folder`; returns its logits of the calibration and of the test candidates."""
    torch.manual_seed(learning.seed)
    decoder = AutoModelForCausalLM.from_pretrained(trunk, dtype=torch.float32)
    if decoder.config.hidden_size < NARROW:
        torch.set_num_threads(1)
    value = grow(decoder, learning.layers)
    teach(value, decoder, parts.train, course, learning, watch)
    value.eval().save_pretrained(folder)
    for name in COPIED:
        if name != "config.json" and (trunk / name).is_file():
            shutil.copyfile(trunk / name, folder / name)
    return judge(value, parts.calibration, watch), judge(value, parts.test, watch)


def grow(decoder: Network, layers: int) -> Network:
    """The decoder's trunk, new layers on top that start as almost nothing, and one logit."""
    config = copy.deepcopy(decoder.config)
    trunk = config.num_hidden_layers
    config.num_hidden_layers, config.num_labels = trunk + layers, 1
    if getattr(config, "layer_types", None):
        config.layer_types = [*config.layer_types, *config.layer_types[-1:] * layers]
    if config.pad_token_id is None:
        config.pad_token_id = first(config.eos_token_id)
    value = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    value.model.load_state_dict(decoder.model.state_dict(), strict=False)
    with torch.no_grad():
        for layer in value.model.layers[trunk:]:
            layer.self_attn.o_proj.weight.mul_(QUIET)
            layer.mlp.down_proj.weight.mul_(QUIET)
    return value


def first(token: int | list[int] | None) -> int:
    return token[0] if isinstance(token, list) else token or 0


def teach(
    value: Network, decoder: Network, known: Sequence[Judged], course: Course, learning: Learning, watch: Watch
) -> float:
    """Fit to the verdicts; the decoder's own head reads the trunk's predictions meanwhile, and is not kept."""
    writer = nn.ModuleList([copy.deepcopy(decoder.model.norm), copy.deepcopy(decoder.lm_head)])
    batches, trunk = _batches(known, learning, value.config.pad_token_id), decoder.config.num_hidden_layers
    grown = value.config.num_hidden_layers > trunk

    def loss() -> Tensor:
        some = next(batches)
        out = value.model(some.ids, use_cache=False, output_hidden_states=grown)
        below = writer[0](out.hidden_states[trunk]) if grown else out.last_hidden_state
        return _verdict_loss(value.score(out.last_hidden_state)[..., 0], some) + _writing_loss(writer[1](below), some)

    def report(share: float, loss: float | None) -> None:
        watch(Progress("value model", share, loss=loss))

    return fit([*value.parameters(), *writer.parameters()], course, loss, report)


def _batches(known: Sequence[Judged], learning: Learning, pad: int) -> Iterator[Rows]:
    """Endless batches, right and wrong candidates in equal parts."""
    random = np.random.default_rng(learning.seed)
    kinds = [[each for each in known if each.right is kind] for kind in (True, False)]
    while True:
        drawn = [kind[place] for kind in kinds for place in random.integers(0, len(kind), max(1, learning.rows // 2))]
        yield batch(drawn, pad)


def _verdict_loss(logits: Tensor, some: Rows) -> Tensor:
    """The verdict after the last token, and as much again for those after every token of the answer."""
    targets = some.right.float()[:, None].expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return losses.gather(1, some.last).mean() + losses[some.written].mean()


def _writing_loss(logits: Tensor, some: Rows) -> Tensor:
    """Of the next token, wherever it is one of a right answer's."""
    right = some.written[:, 1:] & some.right[:, None]
    return F.cross_entropy(logits[:, :-1][right], some.ids[:, 1:][right])


@torch.no_grad()
def judge(value: Network, candidates: Sequence[Judged], watch: Watch) -> Array:
    """The logit after the last token of each candidate."""
    order = sorted(range(len(candidates)), key=lambda index: len(candidates[index]))
    logits = np.zeros(len(candidates))
    for start in range(0, len(order), ROWS):
        some = order[start : start + ROWS]
        rows = batch([candidates[index] for index in some], value.config.pad_token_id)
        hidden = value.model(rows.ids, use_cache=False).last_hidden_state
        logits[some] = value.score(hidden)[..., 0].gather(1, rows.last)[:, 0].double().numpy()
        watch(Progress("judging", min(1.0, (start + ROWS) / len(order))))
    return logits
