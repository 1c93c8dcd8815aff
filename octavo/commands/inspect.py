"""`octavo inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import show
from octavo.options import Fallback, Json


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder.")],
    verify: Annotated[bool, typer.Option(help="Check the sha256 of every file.")] = True,
    provider: Annotated[
        str | None, typer.Option(help="Open the graphs on tensorrt, cuda or cpu, and count what runs where.")
    ] = None,
    allow_fallback: Fallback = False,
    json: Json = False,
) -> None:
    """Verify a bundle and print what is in it: sizes, graphs, parity, targets, KV bytes per token.

    With --provider, exits with 4 when a node of a graph would run elsewhere.
    """
    from octavo.profiles.manifest import verify_bundle

    manifest = verify_bundle(bundle, hashes=verify)
    if provider is None:
        return show.manifest(manifest, bundle, as_json=json)
    from octavo.runtime.ort.survey import survey

    found = survey(bundle, manifest, provider, allow_fallback=allow_fallback)
    return show.manifest(manifest, bundle, found, as_json=json)
