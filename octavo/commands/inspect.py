"""`octavo inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo import show
from octavo.options import Json


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder.")],
    verify: Annotated[bool, typer.Option(help="Check the sha256 of every file.")] = True,
    json: Json = False,
) -> None:
    """Verify a bundle and print what is in it: sizes, graphs, parity, targets, KV bytes per token."""
    from octavo.profiles.manifest import verify_bundle

    show.manifest(verify_bundle(bundle, hashes=verify), bundle, as_json=json)
