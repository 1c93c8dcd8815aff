"""`octavo doctor`."""

from __future__ import annotations

from pathlib import Path

import typer

from octavo import terminal
from octavo.options import Json


def doctor(json: Json = False) -> None:
    """Say what this machine has, and which execution providers really create a session.

    Exits with 4 when something found would fail later.
    """
    from octavo.doctor import examine

    findings = list(examine(Path.cwd()))
    if json:
        terminal.dump([{"what": f.what, "status": f.status, "detail": f.detail} for f in findings])
    else:
        terminal.show(terminal.table("", ("", "", ""), [(f.what, f.status, f.detail) for f in findings], left=3))
    if any(finding.status == "wrong" for finding in findings):
        raise typer.Exit(4)
