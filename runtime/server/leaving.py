"""Work that ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class ClientGone(Exception):
    """The client has closed the connection."""


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled as soon as the client leaves. Raises ClientGone then.

    The work runs in the caller's own task: every task between an engine and its client is a turn of the event loop,
    and for each of these the loop waits in line with the engines for the interpreter.
    """
    waiting, left = asyncio.current_task(), False
    assert waiting is not None

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        waiting.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if left and not waiting.uncancel():
            raise ClientGone from None
        raise
    finally:
        watching.cancel()
