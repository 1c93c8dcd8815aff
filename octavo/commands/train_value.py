"""`octavo train-value`."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo import show, terminal
from octavo.options import Bundle, Fallback, Json, Provider, Seed

if TYPE_CHECKING:
    from octavo.exporters.train.value import Taught

CANDIDATES, FIGURES = "candidates.jsonl", "value.json"


def train_value(
    bundle: Bundle,
    tasks: Annotated[Path, typer.Argument(help="JSON Lines: a prompt each, and a reference or what a verifier needs.")],
    out: Annotated[Path, typer.Option(help="A folder for the value model, its figures and the candidates.")],
    on: Annotated[str, typer.Option(help="trunk: a model of its own; states: a head on the experts'.")] = "trunk",
    trunk: Annotated[
        Path | None, typer.Option(help="The decoder it grows from; the first expert's by default.")
    ] = None,
    verifier: Annotated[str | None, typer.Option(help="module:function, file.py:function or command:PROGRAM.")] = None,
    answer: Annotated[str | None, typer.Option(help="A function that finds in a text what is compared.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples per expert and task.", min=1)] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.", min=1)] = None,
    held_out: Annotated[float, typer.Option(help="Share of the tasks kept to calibrate and test with.")] = 0.3,
    steps: Annotated[int, typer.Option(help="Steps of learning, of a trunk.", min=1)] = 700,
    rows: Annotated[int, typer.Option(help="Candidates per step.", min=1)] = 128,
    rate: Annotated[float | None, typer.Option(help="Highest rate; 0.2 / hidden size by default.")] = None,
    layers: Annotated[int, typer.Option(help="New layers on top of the trunk.", min=0)] = 2,
    seed: Seed = 0,
    provider: Provider = None,
    allow_fallback: Fallback = False,
    json: Json = False,
) -> None:
    """Train a value model on what the ensemble itself writes, judged by a verifier or the references.

    Samples candidates (a run that is interrupted goes on where it stopped), learns which are right, calibrates and
    tests on tasks it has not learnt from. `octavo export --value` takes the folder.
    """
    from octavo.exporters.train.learning import Learning
    from octavo.exporters.train.value import On, train_value
    from octavo.runtime.collect import collect

    learning = Learning(steps, rows, rate, layers, held_out, seed)
    kind = show.choice("on", on, On)
    with terminal.watching() as watch:
        collect(
            bundle,
            tasks,
            out / CANDIDATES,
            verifier=verifier,
            answer=answer,
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            limit=limit,
            seed=seed,
            progress=lambda share: watch("sampling candidates", share, ""),
            provider=provider,
            allow_fallback=allow_fallback,
        )
        taught = train_value(
            bundle,
            out / CANDIDATES,
            out,
            on=kind,
            trunk=trunk,
            learning=learning,
            watch=lambda p: watch(p.stage, p.fraction, p.message),
        )
    tell(taught, out, kind, as_json=json)


def tell(taught: Taught, out: Path, kind: str, *, as_json: bool) -> None:
    """Print how good the value model is on its test candidates; the figures go beside it as well."""
    from octavo.runtime.statistics import judge

    found = judge(taught.test)
    assert found is not None, "split leaves none of its parts empty"
    figures = {"scale": taught.scale, "shift": taught.shift, "candidates": taught.calibrated_on, "brier": found.brier}
    figures |= {"auc": found.auc or 0.0, "calibration_error": found.calibration_error}
    figures |= {} if found.auc_within is None else {"auc_within_query": found.auc_within}
    show.write(out / "calibration.json", dumps(figures, indent=2) + "\n")
    tested = sum(map(len, taught.test))
    counts = {"trained_on": taught.trained_on, "calibrated_on": taught.calibrated_on, "tested_on": tested}
    bins = [asdict(each) for each in found.reliability]
    document = {"kind": "train-value", "on": kind, **figures, **counts, "reliability": bins}
    show.write(out / FIGURES, dumps(document, indent=2) + "\n")
    if as_json:
        terminal.dump(document)
        return
    rows = [(f"{each.said:.2f}", f"{each.right:.2f}", str(each.count)) for each in found.reliability]
    terminal.show(terminal.table("", ("says", "is right", "candidates"), rows, left=0))
    within = "-" if found.auc_within is None else f"{found.auc_within:.3f}"
    terminal.say(
        f"{tested} candidates of {len(taught.test)} tasks that it has not learnt from, nor been calibrated on:"
    )
    terminal.say(f"AUC {found.auc or 0:.3f}, within a query {within}; off by {found.calibration_error:.3f} on the mean")
    terminal.say(f"wrote {out}; `octavo export ... --value {out}` takes it")
