"""What every request passes before anything of it is parsed: key, host, size, and time to send."""

from __future__ import annotations

import asyncio
import hmac
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.runtime.server.refusals import Refusal
from octavo.runtime.server.settings import ServerSettings, is_loopback

OPEN_PATHS = ("/health",)


class Guard:
    """ASGI middleware; the application behind it gets whole bodies of at most `max_body` bytes."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._keys = [key.encode() for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope = _in_origin_form(scope)
            headers = Headers(scope=scope)
            self._measure(scope)
            if scope["path"] not in OPEN_PATHS:
                self._admit(headers)
            body = await self._read(headers, receive)
            if body:
                _demand_json(headers)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
        except ConnectionError:
            return
        else:
            await self._app(scope, _replay(body, receive), send)

    def _measure(self, scope: Scope) -> None:
        """The parser stops a head that keeps coming, not one that comes at once."""
        size = len(scope["path"]) + len(scope["query_string"])
        if size + sum(len(name) + len(value) for name, value in scope["headers"]) > self._settings.max_header:
            most = self._settings.max_header
            raise Refusal(431, f"the head is longer than {most} bytes", code="head_too_long", headers=_CLOSE)

    def _admit(self, headers: Headers) -> None:
        if self._keys:
            self._check_key(headers)
        elif not is_loopback(_host(headers)):
            raise Refusal(403, "without an API key only this machine is served, by a loopback host name", code="host")

    def _check_key(self, headers: Headers) -> None:
        """Takes as long for one wrong key as for another: every key is compared, each in constant time."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        sent = given.strip().encode("latin-1", "replace")
        right = sum(hmac.compare_digest(sent, key) for key in self._keys)
        if not right or scheme.lower() != "bearer":
            challenge = {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, "a valid API key is needed", code="invalid_api_key", headers=challenge)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        most = self._settings.max_body
        too_long = Refusal(413, f"the body is longer than {most} bytes", code="body_too_long", headers=_CLOSE)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > most:
            raise too_long
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.read_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionResetError
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_long
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refusal(408, "the body took too long to arrive", code="read_timeout", headers=_CLOSE) from None


_CLOSE = {"Connection": "close"}


def _host(headers: Headers) -> str:
    """The host name that the client used, without its port."""
    host = headers.get("host", "")
    return host.partition("]")[0] + "]" if host.startswith("[") else host.rpartition(":")[0] or host


def _in_origin_form(scope: Scope) -> Scope:
    """A request line may hold a whole URL, as to a proxy; its host is then the one that counts (RFC 9112, 3.2.2)."""
    raw = bytes(scope.get("raw_path") or b"")
    scheme, found, rest = raw.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        return scope
    host, _, path = rest.partition(b"/")
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    path = b"/" + path
    changed = {"raw_path": path, "path": unquote(path.decode("latin-1")), "headers": [(b"host", host), *headers]}
    return {**scope, **changed}


def _demand_json(headers: Headers) -> None:
    """A web page cannot send this content type to another site without asking first, which is never granted."""
    kind, _, about = headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "application/json":
        raise Refusal(415, "the body must be application/json", code="content_type")
    name, _, charset = about.partition("=")
    if name.strip().lower() == "charset" and charset.strip().strip('"').lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Refusal(415, "the body must be in UTF-8", code="content_type")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refusal(415, "the body must not be compressed (content-encoding)", code="content_encoding")


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then whatever the connection has to say."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    return replay
