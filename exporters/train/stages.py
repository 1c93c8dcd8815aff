"""What each stage does, in a worker process: make one model, and save it as a Hugging Face checkpoint folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch

from octavo.exporters.train.alphabet import save_tokenizer
from octavo.exporters.train.calibration import Calibration, calibrate
from octavo.exporters.train.fitting import Report, fit_decoder
from octavo.exporters.train.folders import RECORD, whole
from octavo.exporters.train.models import Network, average, grow_value, new_decoder, open_decoder
from octavo.exporters.train.plan import EXPERT_NAMES, Stage
from octavo.exporters.train.problems import NAMES, Problem, draw, fixed, leaning, take
from octavo.exporters.train.progress import Progress, Watch
from octavo.exporters.train.recipe import EXPERTS, Recipe
from octavo.exporters.train.verdicts import Candidates, ask, fit_value, join, logits_of


@dataclass(frozen=True, slots=True)
class Made:
    """What a stage made: the network, its last loss if it was trained, and a value model's calibration."""

    network: Network
    loss: float | None = None
    calibration: Calibration | None = None


def carry_out(stage: Stage, recipe: Recipe, root: Path, watch: Watch) -> None:
    """Make the stage's model and save it under `root`, whole or not at all."""
    began, cpu = time.monotonic(), time.process_time()

    def report(share: float, loss: float | None) -> None:
        watch(Progress(stage.name, share, time.monotonic() - began, loss))

    report(0.0, None)
    with whole(root / stage.name) as folder:
        made = _maker(stage.name)(recipe, root, report)
        made.network.save_pretrained(folder)
        save_tokenizer(folder)
        if made.calibration:
            _write(folder / "calibration.json", asdict(made.calibration))
        seconds = {"wall_seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
        record = {"stage": stage.name, "key": stage.key, "seed": recipe.seed, "loss": made.loss}
        _write(folder / RECORD, {**record, **seconds, "torch": str(torch.__version__)})
    report(1.0, made.loss)


def _write(path: Path, figures: dict[str, object]) -> None:
    path.write_text(json.dumps(figures, indent=2) + "\n")


Maker = Callable[[Recipe, Path, Report], Made]


def _maker(name: str) -> Maker:
    if name in EXPERT_NAMES:
        number = EXPERT_NAMES.index(name)
        return lambda recipe, root, report: _expert(number, recipe, root, report)
    return {"base": _base, "soup": _soup, "value": _value, "generalist": _generalist}[name]


def _problems(recipe: Recipe, purpose: str, weights: list[float] | None = None) -> Iterator[Problem]:
    """Endless training problems; one random stream per purpose."""
    return draw(Random(f"{recipe.seed} {purpose}"), recipe.digits, "train", weights or [1] * len(NAMES))


def _base(recipe: Recipe, root: Path, report: Report) -> Made:
    model = new_decoder(recipe)
    return Made(model, fit_decoder(model, recipe.base, _problems(recipe, "base"), recipe.batch, report))


def _expert(number: int, recipe: Recipe, root: Path, report: Report) -> Made:
    model = open_decoder(root / "base")
    problems = _problems(recipe, f"expert {number}", leaning(number, recipe.speciality))
    return Made(model, fit_decoder(model, recipe.expert, problems, recipe.batch, report))


def _generalist(recipe: Recipe, root: Path, report: Report) -> Made:
    """The base with all the experts' steps, on the puzzles in equal parts: what the experts saw, taken together."""
    model, course = open_decoder(root / "base"), recipe.expert.times(EXPERTS)
    return Made(model, fit_decoder(model, course, _problems(recipe, "generalist"), recipe.batch, report))


def _soup(recipe: Recipe, root: Path, report: Report) -> Made:
    return Made(average([open_decoder(root / name) for name in EXPERT_NAMES]))


def _value(recipe: Recipe, root: Path, report: Report) -> Made:
    experts = [open_decoder(root / name) for name in EXPERT_NAMES]
    soup = open_decoder(root / "soup")
    problems = _problems(recipe, "candidates")
    candidates = join(
        [ask(expert, take(problems, recipe.value.problems), recipe, seed=seed) for seed, expert in enumerate(experts)]
    )
    model = grow_value(soup, recipe)
    loss = fit_value(model, soup, candidates, recipe, report)
    return Made(model, loss, _calibration(model.eval(), experts, recipe))


def _calibration(value: Network, experts: list[Network], recipe: Recipe) -> Calibration:
    problems = fixed(recipe, "validation", recipe.value.calibration_problems)
    by_expert = [ask(expert, problems, recipe, seed=100 + seed) for seed, expert in enumerate(experts)]
    return calibrate(
        torch.cat([_by_query(logits_of(value, part), recipe) for part in by_expert], 1),
        torch.cat([_by_query(_verdicts(part), recipe) for part in by_expert], 1),
    )


def _verdicts(candidates: Candidates) -> torch.Tensor:
    return candidates.right_so_far[:, -1] == 1


def _by_query(rows: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    return rows.view(-1, recipe.samples)
