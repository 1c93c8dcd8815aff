"""Starts `serve` in a process of its own for the scripts of this folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = """
import json, sys
from pathlib import Path
from octavo.runtime.server import ServerSettings, serve
serve(Path(sys.argv[1]), ServerSettings(port=0, **json.loads(sys.argv[2])))
"""


@contextmanager
def serving(
    bundle: Path, heard: list[str] | None = None, started: list[int] | None = None, **settings: object
) -> Iterator[str]:
    """The URL of a server; raises where it does not end in order. `heard` gets what it logs, `started` its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(bundle), json.dumps(settings)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    if started is not None:
        started.append(process.pid)
    first = process.stderr.readline()
    if '"listening"' not in first:
        raise SystemExit(first + process.stderr.read())
    defects: list[str] = []

    def read() -> None:
        for line in process.stderr or ():
            if heard is not None:
                heard.append(line)
            if '"traceback"' in line:
                defects.append(line)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield f"http://127.0.0.1:{json.loads(first)['port']}"
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        reader.join()
    if code or defects:
        raise SystemExit(f"the server ended with {code}; it logged: {''.join(defects[:3])}")
