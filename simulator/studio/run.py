"""Serves the page on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable

from werkzeug.serving import make_server

from octavo.profiles.errors import MachineError
from octavo.simulator.studio.app import make_app


def run_studio(scenario: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve until interrupted; `tell` is given the address.

    Raises ConfigError, MachineError where the port is taken.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    app = make_app(scenario)
    try:
        server = make_server("127.0.0.1", port, app.server, threaded=True)
    except (OSError, SystemExit) as error:
        raise MachineError(f"studio: cannot listen on 127.0.0.1:{port}: {error}") from None
    tell(f"octavo studio on http://127.0.0.1:{server.port}")
    try:
        server.serve_forever()
    finally:
        server.server_close()
