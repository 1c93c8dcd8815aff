"""`octavo ask`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from octavo import show
from octavo.options import Bundle, Devices, Fallback, Json, Kernels, Prepack, Provider, Seed, Threads, several
from octavo.profiles.errors import ConfigError


def ask(
    bundle: Bundle,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; or give a task file.")] = None,
    task: Annotated[Path | None, typer.Option(help="Take the prompt from this JSON Lines file.")] = None,
    number: Annotated[int, typer.Option(help="Which prompt of the task file, from 0.", min=0)] = 0,
    policy: Annotated[str | None, typer.Option(help="The bundle's own by default.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE: a setting of the policy; repeatable.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Samples per expert.", min=1)] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.", min=0.0)] = None,
    top_k: Annotated[int | None, typer.Option(min=1)] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    min_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Divides the logits of tokens seen.")] = None,
    presence_penalty: Annotated[float | None, typer.Option(help="Is taken from the logits of tokens written.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends a candidate; repeatable.")] = None,
    verifier: Annotated[
        str | None, typer.Option(help="Drops candidates, with --policy filtered: file.py:function or command:PROGRAM.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    variants: Annotated[Path | None, typer.Option(help="JSON: an expert's name to its template with {prompt}.")] = None,
    json_schema: Annotated[Path | None, typer.Option(help="Every candidate must be JSON of this schema.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds; then answer with what has arrived.", min=0.0)] = None,
    seed: Seed = 0,
    provider: Provider = None,
    allow_fallback: Fallback = False,
    devices: Devices = None,
    threads: Threads = None,
    prepack: Prepack = False,
    kernels: Kernels = None,
    json: Json = False,
) -> None:
    """Ask the ensemble, and see every candidate: expert, text, mean log-probability, value, and which was chosen."""
    from octavo.runtime.local import Octavo
    from octavo.runtime.tasks import load_verifier

    text = show.prompt_of(prompt, task, number)
    given: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "stop": stop,
        "max_new_tokens": max_new_tokens,
    }
    if variants is not None:
        given["variants"] = show.json_object(variants)
    if setting:
        given["settings"] = show.settings(setting)
    if verifier is not None:
        if policy != "filtered":
            raise ConfigError("--verifier: only --policy filtered asks one")
        given["verify"] = partial(load_verifier(verifier), text)
    if json_schema is not None:
        given["grammar"] = show.json_object(json_schema)
    options = {name: value for name, value in given.items() if value is not None}
    with Octavo.load(
        bundle,
        samples=samples,
        provider=provider,
        allow_fallback=allow_fallback,
        devices=several(devices),
        threads=threads,
        prepack=prepack,
        kernels=kernels,
    ) as octavo:
        result = octavo.ask(text, policy=policy, seed=seed, deadline=deadline, **options)
    show.answer(result, as_json=json)
