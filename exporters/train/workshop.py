"""Trains the ensemble: finds what is finished, has a crew make the rest, says where everything is."""

from __future__ import annotations

import shutil
from pathlib import Path

from octavo.exporters.train.crew import cores, crew
from octavo.exporters.train.folders import is_finished
from octavo.exporters.train.plan import BASELINES, EXPERT_NAMES, plan
from octavo.exporters.train.problems import write_tasks
from octavo.exporters.train.progress import Progress, Trained, Watch, silent
from octavo.exporters.train.recipe import DEFAULT, EXPERTS, Recipe


def train_ensemble(
    folder: Path,
    recipe: Recipe = DEFAULT,
    *,
    fresh: bool = False,
    progress: Watch = silent,
    workers: int | None = None,
) -> Trained:
    """Train what is not there yet: base, eight experts, value model, generalist and soup.

    Each is a Hugging Face checkpoint folder under `folder`; the problems are in `tasks/`. A stage that was finished
    with the same settings is kept, unless `fresh`. Interrupting leaves finished stages whole and no half ones.
    Call it under `if __name__ == "__main__"` in a script: the workers are spawned processes.
    """
    stages = plan(recipe)
    if fresh:
        for stage in stages:
            shutil.rmtree(folder / stage.name, ignore_errors=True)
    write_tasks(folder / "tasks", recipe)
    missing = [stage for stage in stages if not is_finished(folder / stage.name, stage.key)]
    for stage in stages:
        if stage not in missing:
            progress(Progress(stage.name, 1.0, found=True))
    if missing:
        with crew(folder, recipe, workers or min(cores(), EXPERTS + 1, len(missing))) as hired:
            hired.carry_out(missing, progress)
    return _found(folder)


def _found(folder: Path) -> Trained:
    return Trained(
        folder=folder,
        experts=tuple(folder / name for name in EXPERT_NAMES),
        value=folder / "value",
        baselines=tuple(folder / name for name in BASELINES),
        validation=folder / "tasks" / "validation.jsonl",
        heldout=folder / "tasks" / "heldout.jsonl",
    )
