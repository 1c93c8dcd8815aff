"""Starts `serve` in a process of its own for the scripts of this folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MISSED = 6  # exit code, as that of the program's gates
PROGRAM = """
import json, sys
from pathlib import Path
from octavo.runtime.server import ServerSettings, serve
serve(Path(sys.argv[1]), ServerSettings(port=0, **json.loads(sys.argv[2])))
"""


def pinning(parser: ArgumentParser) -> None:
    """Options that keep server and clients on cores of their own, so that other work disturbs them less."""
    parser.add_argument("--core", type=int, help="the server's, and the clients' where they have none of their own")
    parser.add_argument("--client-core", type=int)


def pinned(given: Namespace) -> int | None:
    """Pin this process, which holds the clients; the server's core."""
    own = given.core if given.client_core is None else given.client_core
    if own is not None:
        os.sched_setaffinity(0, {own})
    core: int | None = given.core
    return core


@contextmanager
def serving(
    bundle: Path,
    heard: list[str] | None = None,
    started: list[int] | None = None,
    core: int | None = None,
    **settings: object,
) -> Iterator[str]:
    """The URL of a server; raises where it does not end in order. `heard` gets what it logs, `started` its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(bundle), json.dumps(settings)],
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is for this script, which then ends the server
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
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
        code = process.wait(180)
        reader.join()
    if code or defects:
        raise SystemExit(f"the server ended with {code}; it logged: {''.join(defects[:3])}")
