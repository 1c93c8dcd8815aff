"""`octavo train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import terminal


def train(
    out: Annotated[Path, typer.Argument(help="The folder for the checkpoints and the task files.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is there already.")] = False,
) -> None:
    """Train the embedded default: a base, eight experts, a value model, and two baselines of equal training.

    All are saved as ordinary Hugging Face checkpoint folders. A stage that is finished is not trained again.
    """
    from octavo.exporters.train import train_ensemble

    with terminal.watching() as watch:
        train_ensemble(out, fresh=fresh, progress=lambda p: watch(p.stage, p.fraction, p.message))
    terminal.say(f"trained in {out}: {', '.join(sorted(path.parent.name for path in out.glob('*/config.json')))}")
