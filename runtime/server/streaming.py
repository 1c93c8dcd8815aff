"""Server-sent events: comments while the candidates are written, then the answer, its usage, and `[DONE]`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from time import time
from typing import Any

from starlette.types import Receive, Scope, Send

from octavo.runtime.local import Reply
from octavo.runtime.pieces import Piece
from octavo.runtime.server.account import Account
from octavo.runtime.server.answers import Usage, deliberation, new_id, pieces, returned, usage
from octavo.runtime.server.desk import Answered, Taken
from octavo.runtime.server.leaving import ClientGone, until_gone
from octavo.runtime.server.logprobs import ChatLogprobs, TextLogprobs
from octavo.runtime.server.refusals import Refusal
from octavo.runtime.server.requests import ChatRequest, StreamOptions
from octavo.runtime.server.settings import ServerSettings

KEEP_ALIVE = b": the ensemble is at work\n\n"
DONE = b"data: [DONE]\n\n"
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


class Chunks:
    """The chunks of one stream, in the shape of its endpoint."""

    def __init__(self, taken: Taken) -> None:
        self._chat = isinstance(taken.asked, ChatRequest)
        self._options = taken.asked.stream_options or StreamOptions()
        self._head = {
            "id": new_id(taken.asked),
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": int(time()),
            "model": taken.asked.model,
        }
        self._spent = Usage.of(taken.prompt_tokens, 0)

    def opening(self, index: int) -> list[bytes]:
        return [self._chunk([self._choice(index, {"role": "assistant", "content": ""})])] if self._chat else []

    def text(self, index: int, text: str) -> bytes:
        return self._chunk([self._choice(index, {"content": text} if self._chat else text)])

    def piece(self, index: int, text: str, piece: Piece, before: int) -> bytes:
        """A token with its log-probability; `before` are the characters of the text before it."""
        logprobs = ChatLogprobs.of([piece]) if self._chat else TextLogprobs.of([piece], before)
        choice = self._choice(index, {"content": text} if self._chat else text)
        return self._chunk([choice | {"logprobs": logprobs.model_dump()}])

    def finish(self, index: int, reason: str, extra: dict[str, Any]) -> bytes:
        return self._chunk([self._choice(index, {} if self._chat else "", reason)], extra)

    def usage(self) -> list[bytes]:
        """The last chunk, for those who asked for it."""
        return [self._chunk([], {"usage": self._spent.model_dump()})] if self._options.include_usage else []

    def spend(self, spent: Usage) -> None:
        """What has been used up by the next chunk."""
        self._spent = spent

    def _choice(self, index: int, delta: dict[str, str] | str, reason: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta" if self._chat else "text": delta, "finish_reason": reason, "logprobs": None}

    def _chunk(self, choices: list[dict[str, Any]], extra: dict[str, Any] | None = None) -> bytes:
        more: dict[str, Any] = {"usage": None} if self._options.include_usage else {}
        if self._options.continuous_usage_stats:
            more = {"usage": self._spent.model_dump()}
        return event(self._head | {"choices": choices} | more | (extra or {}))


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":"), allow_nan=False).encode() + b"\n\n"


async def events(taken: Taken, account: Account, keep_alive: float) -> AsyncGenerator[bytes, None]:
    """Everything that is sent for a query; a refusal comes as an event too, for the status has gone out before."""
    chunks, sent, count = Chunks(taken), "", 0
    try:
        yield KEEP_ALIVE
        if taken.live:
            for chunk in chunks.opening(0):
                yield chunk
        async with aclosing(taken.texts(keep_alive)) as texts:
            async for text in texts:
                if text is None:
                    yield KEEP_ALIVE
                    continue
                account.first_text()
                sent, count = sent + text, count + 1
                chunks.spend(Usage.of(taken.prompt_tokens, count))
                yield chunks.text(0, text)
        answered = await taken.result()
        account.answered(answered)
        for chunk in ending(chunks, taken, answered, sent):
            yield chunk
    except Refusal as refusal:
        account.refused(refusal)
        yield event(refusal.body)
    yield DONE


def ending(chunks: Chunks, taken: Taken, answered: Answered, sent: str) -> list[bytes]:
    """What is left to say once the query is over; `sent` is the text that went out as it grew."""
    replies, made = returned(answered, taken.asked.n or 1), []
    chunks.spend(usage(answered, replies))
    for index, reply in enumerate(replies):
        if not taken.live:
            made += chunks.opening(index)
        if taken.asked.noted is None:
            made += [chunks.text(index, piece) for piece in pieces(reply.text.removeprefix(sent))]
        else:
            made += [chunks.piece(index, *each) for each in spoken(reply)]
        extra = {"octavo": deliberation(answered).model_dump()} if reply.chosen else {}
        made.append(chunks.finish(index, reply.finish, extra))
    return made + chunks.usage()


def spoken(reply: Reply) -> Iterator[tuple[str, Piece, int]]:
    """A text token by token: what is said with each, the token, and the characters before it.

    What is said adds up to the text, also where a token is a part of a character or was cut by a stop string.
    """
    written, said = b"", 0
    for place, piece in enumerate(reply.pieces):
        written += piece.bytes
        last = place == len(reply.pieces) - 1
        upto = len(reply.text) if last else min(len(reply.text), len(written.decode("utf-8", "ignore")))
        yield reply.text[said:upto], piece, said
        said = upto


class EventStream:
    """An ASGI response that sends events, and withdraws the query as soon as the client leaves or stops reading."""

    def __init__(self, taken: Taken, account: Account, settings: ServerSettings) -> None:
        self._taken = taken
        self._account = account
        self._events = events(taken, account, settings.keep_alive)
        self._patience = settings.read_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._taken:
            try:
                await until_gone(receive, self._send_all(send))
            except (ClientGone, TimeoutError):
                self._account.gone()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        async with aclosing(self._events) as chunks:
            async for chunk in chunks:
                async with asyncio.timeout(self._patience):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
