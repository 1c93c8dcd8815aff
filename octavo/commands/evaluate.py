"""`octavo eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import show, terminal
from octavo.options import Bundle, Devices, Fallback, Json, Kernels, Prepack, Provider, Seed, Threads, several


def evaluate(
    bundle: Bundle,
    tasks: Annotated[Path, typer.Argument(help="JSON Lines: a prompt each, and a reference or what a verifier needs.")],
    out: Annotated[Path | None, typer.Option(help="A folder for eval.json and the candidates, outcomes.jsonl.")] = None,
    verifier: Annotated[str | None, typer.Option(help="module:function or file.py:function of (prompt, text).")] = None,
    answer: Annotated[str | None, typer.Option(help="A function that finds the label to vote on in a text.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Tasks to choose the best expert on.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="NAME=BUNDLE to compare with; repeatable.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples per expert.", min=1)] = None,
    best_of: Annotated[int, typer.Option(help="Samples of the best expert alone.", min=1)] = 16,
    limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.", min=1)] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0)] = None,
    variants: Annotated[Path | None, typer.Option(help="JSON: an expert's name to its template with {prompt}.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Seed = 0,
    provider: Provider = None,
    allow_fallback: Fallback = False,
    devices: Devices = None,
    threads: Threads = None,
    prepack: Prepack = False,
    kernels: Kernels = None,
    json: Json = False,
) -> None:
    """Let every policy answer held-out tasks, from one sampling run, and say where the ensemble does not pay.

    Accuracy with 95 % intervals, tokens, measured seconds; candidates are stored for `octavo simulate --outcomes`.
    """
    from octavo.runtime.evaluate import evaluate

    with terminal.watching() as watch:
        found = evaluate(
            bundle,
            tasks,
            verifier=verifier,
            answer=answer,
            validation=validation,
            baselines=dict(show.pair("baseline", text) for text in baseline or []),
            samples=samples,
            best_of=best_of,
            limit=limit,
            seed=seed,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            variants=show.json_object(variants) if variants else None,
            out=out,
            progress=lambda stage, share: watch(stage, share, ""),
            provider=provider,
            allow_fallback=allow_fallback,
            devices=several(devices),
            threads=threads,
            prepack=prepack,
            kernels=kernels,
        )
    show.evaluation(found, as_json=json)
