"""One offline HTML file, a JSON and a Markdown from the documents that the commands write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octavo.profiles.errors import ConfigError, MachineError
from octavo.simulator.report.facts import to_json
from octavo.simulator.report.html import to_html
from octavo.simulator.report.markdown import to_markdown
from octavo.simulator.report.readers import read
from octavo.simulator.report.sections import page

__all__ = ["ReportFiles", "write_report"]


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The same report three times: for people, for machines, for a repository."""

    html: Path
    json: Path
    md: Path


def write_report(
    documents: Sequence[Path], out: Path, *, title: str | None = None, command: str | None = None
) -> ReportFiles:
    """Write the report of these run documents as `out` (.html), and beside it as .json and .md.

    The same documents give the same bytes. Each file appears whole or not at all. Raises ConfigError for a document
    that is missing, malformed or of an unknown kind, MachineError where the files cannot be written.
    """
    if not documents:
        raise ConfigError(
            "report: no run documents were given; `octavo eval`, `measure`, `simulate` and `plan` write them"
        )
    made = page([read(Path(path)) for path in documents], title, command)
    files = ReportFiles(*(out.with_suffix(suffix) for suffix in (".html", ".json", ".md")))
    if any(
        path.resolve() == Path(document).resolve()
        for path in (files.html, files.json, files.md)
        for document in documents
    ):
        raise ConfigError(f"--out: {out} would overwrite a document that the report is made from")
    for path, text in ((files.json, to_json(made)), (files.md, to_markdown(made)), (files.html, to_html(made))):
        _write(path, text)
    return files


def _write(path: Path, text: str) -> None:
    """The file whole, or as it was before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                temporary.chmod(0o644)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise MachineError(f"{path}: cannot be written: {error.strerror or error}") from None
