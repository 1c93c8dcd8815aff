"""A server on a free port, in a thread of this process, with the tiny bundle behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("onnxruntime", "tokenizers", "starlette", "uvicorn", "httpx", "prometheus_client")
if not all(map(find_spec, NEEDED)):
    collect_ignore_glob = ["test_*.py"]  # what needs octavo[runtime,serve]


@dataclass
class Running:
    """A server that listens."""

    url: str
    port: int
    octavo: Any
    served: Any

    @property
    def admission(self) -> Any:
        return self.served.desk.admission

    def wait_until_empty(self, seconds: float = 5) -> bool:
        """Whether nothing is held any more: no place, no query, no row, no KV block."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.empty:
                return True
            time.sleep(0.01)
        return False

    @property
    def empty(self) -> bool:
        loop, taken = self.octavo.loop, self.admission
        queues = [queue for lane in loop.lanes for queue in lane.schedulers.values()]
        held = sum(len(queue) + queue.kv.used for queue in queues) + len(loop.contents) + loop.council.open
        return (held, taken.candidates, taken.tokens, taken.queries) == (0, 0, 0, 0)


Serve = Callable[..., Any]


@contextmanager
def running(octavo: Any, tracers: Any = None, **settings: Any) -> Iterator[Running]:
    from octavo.runtime.server.app import Server
    from octavo.runtime.server.run import Listener
    from octavo.runtime.server.settings import ServerSettings

    chosen = ServerSettings(port=0, **settings)
    served = Server(octavo, chosen, tracers)
    listener = Listener(served, chosen)
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    while not listener.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = listener.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", port, octavo, served)
    finally:
        listener.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def octavo(bundle: Path) -> Iterator[Any]:
    from octavo.runtime.local import Octavo

    with Octavo.load(bundle, samples=2, devices=["cpu:0", "cpu:1"], threads=1) as loaded:  # a lane an expert
        yield loaded


@pytest.fixture(scope="session")
def server(octavo: Any) -> Iterator[Running]:
    """One for all tests that leave it as it was."""
    with running(octavo) as up:
        yield up


@pytest.fixture
def serve(octavo: Any) -> Serve:
    """serve(**settings): a server of one's own, in a `with` block."""
    return lambda **settings: running(settings.pop("octavo", octavo), **settings)
