"""`serve`: load a bundle, warm it, listen, and on SIGTERM answer what is in flight before leaving."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from octavo.profiles.errors import MachineError
from octavo.runtime.local import Octavo
from octavo.runtime.server.app import Server
from octavo.runtime.server.journal import log, start_logging
from octavo.runtime.server.refusals import Refusal
from octavo.runtime.server.settings import ServerSettings

BACKLOG = 2048
SWITCH = 0.001  # seconds that one thread may keep others from Python: engines must not hold up the event loop
NO_HTTP = Refusal(400, "this is no HTTP/1.1 request, or its head is too long", code="no_http")


def serve(bundle: Path, settings: ServerSettings, **load: Any) -> None:
    """Serve a bundle until SIGTERM or SIGINT, then answer what is in flight for at most `settings.drain` seconds.

    `load` are the options of `Octavo.load`. The port opens when every model is verified, loaded and has run once.
    Raises what `Octavo.load` does, ConfigError for what cannot be served, MachineError where the port is taken.
    """
    start_logging(settings.log_format)
    sys.setswitchinterval(SWITCH)
    with bound(settings) as port, Octavo.load(bundle, **load) as octavo:
        octavo.ask("0", policy="ensemble", max_new_tokens=1)
        gc.freeze()  # what is loaded stays: no collection has to look at it while a request waits
        listen(octavo, settings, port)


def bound(settings: ServerSettings) -> socket.socket:
    """The port, taken and not yet open. Raises MachineError."""
    host = settings.host.strip("[]")
    port = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        port.bind((host, settings.port))
    except OSError as error:
        port.close()
        raise MachineError(f"serve: cannot listen on {host}:{settings.port}: {error.strerror}") from None
    return port


def listen(octavo: Octavo, settings: ServerSettings, port: socket.socket) -> None:
    """Serve a loaded bundle on a port."""
    with _signals_end_quietly():
        Listener(Server(octavo, settings), settings).run(sockets=[port])
    log("stopped")


class Listener(uvicorn.Server):
    """uvicorn, which takes no new query from the moment it is told to stop."""

    def __init__(self, served: Server, settings: ServerSettings) -> None:
        self._served = served
        super().__init__(
            uvicorn.Config(
                served.app,
                host=settings.host,
                port=settings.port,
                http=patient(settings.read_timeout),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                h11_max_incomplete_event_size=settings.max_header,
                timeout_keep_alive=max(1, int(settings.read_timeout)),
                timeout_graceful_shutdown=max(1, int(settings.drain)),
            )
        )

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            ports = [each.getsockname()[1] for server in self.servers for each in server.sockets]
            log("listening", host=self.config.host, port=ports[0], models=list(self._served.desk.targets))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._served.desk.admission.draining = True
        super().handle_exit(sig, frame)


def patient(seconds: float) -> type[H11Protocol]:
    """The protocol, with so many seconds for a new connection to send the head of its first request."""

    class Patient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(seconds, self._give_up)

        def _give_up(self) -> None:
            if self.cycle is None:
                self.transport.close()

        def send_400_response(self, msg: str) -> None:
            """As other refusals look; nothing, where an answer has begun."""
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = json.dumps(NO_HTTP.body).encode()
                kept = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
                head = h11.Response(status_code=400, headers=list(kept.items()), reason=b"Bad Request")
                for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event))
            self.transport.close()

    return Patient


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """uvicorn raises the signals again that ended it; here they have done their work by then."""
    if current_thread() is not main_thread():
        yield
        return
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
