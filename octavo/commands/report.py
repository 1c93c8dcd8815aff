"""`octavo report`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from octavo import terminal


def report(
    documents: Annotated[list[Path], typer.Argument(help="What eval, measure, simulate and plan wrote with --out.")],
    out: Annotated[Path, typer.Option(help="The HTML file; .json and .md go beside it.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(help="The report's title.")] = None,
) -> None:
    """Write one offline HTML file: measured quality against simulated cost, and all that stands behind it."""
    from octavo.simulator.report import write_report

    named = ["--title", title] if title else []
    command = shlex.join(["octavo", "report", *map(str, documents), "--out", str(out), *named])
    files = write_report(documents, out, title=title, command=command)
    terminal.say(f"wrote {files.html}, {files.json} and {files.md}")
