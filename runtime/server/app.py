"""The ASGI application: its paths, and the story of one request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from octavo.runtime.local import Octavo
from octavo.runtime.server.account import GONE, Account
from octavo.runtime.server.answers import whole
from octavo.runtime.server.desk import Answered, Asked, Desk, Taken
from octavo.runtime.server.guard import Guard
from octavo.runtime.server.journal import TraceFile
from octavo.runtime.server.leaving import ClientGone, until_gone
from octavo.runtime.server.metrics import Metrics
from octavo.runtime.server.openapi import document
from octavo.runtime.server.refusals import Refusal, defect, malformed, on_failure, on_http, on_refusal
from octavo.runtime.server.requests import ChatRequest, CompletionRequest
from octavo.runtime.server.settings import ServerSettings
from octavo.runtime.server.streaming import EventStream
from octavo.runtime.server.tracing import Spans, tracer_from_environment

Parsed = TypeVar("Parsed", ChatRequest, CompletionRequest)


def make_app(octavo: Octavo, settings: ServerSettings) -> ASGIApp:
    """The application that serves a loaded bundle. Closing the bundle is the caller's.

    Raises ConfigError where the bundle cannot be served, or the trace file cannot be written.
    """
    return Server(octavo, settings).app


class Server:
    """One bundle's endpoints."""

    def __init__(self, octavo: Octavo, settings: ServerSettings, tracers: Any = None) -> None:
        """`tracers` is an OpenTelemetry TracerProvider; without, the settings say whether there is one."""
        if tracers is None and settings.otel:
            tracers = tracer_from_environment()
        self._spans = None if tracers is None else Spans(tracers, octavo.loop.recorder)
        self.settings = settings
        self.desk = Desk(octavo, settings)
        self.metrics = Metrics(self.desk)
        self._created = int((octavo.bundle / "manifest.json").stat().st_mtime)
        self._trace = (
            TraceFile(settings.trace, replace(octavo.run_record(), deadline=settings.deadline))
            if settings.trace
            else None
        )
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{model:path}", self._model),
                Route("/health", self._health),
                Route("/ready", self._ready),
                Route("/metrics", self._scrape),
                Route("/openapi.json", self._openapi),
            ],
            middleware=[Middleware(Guard, settings)],
            exception_handlers={Refusal: on_refusal, HTTPException: on_http, Exception: on_failure},
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False  # a client that follows would lose its key, or its body, on the way

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        heard = [each.hear for each in (self.metrics, self._trace, self._spans) if each is not None]
        listeners = self.desk.octavo.loop.recorder.listeners
        listeners.extend(heard)
        try:
            yield
        finally:
            listeners[:] = [each for each in listeners if each not in heard]
            for each in (self._trace, self._spans):
                if each is not None:
                    each.close()

    async def _chat(self, request: Request) -> Any:
        return await self._answer(request, ChatRequest)

    async def _complete(self, request: Request) -> Any:
        return await self._answer(request, CompletionRequest)

    async def _answer(self, request: Request, kind: type[Parsed]) -> Any:
        account = Account(self.metrics, request.url.path)
        try:
            asked = parse(kind, await request.body())
            account.read(asked)
            if asked.stream:
                return EventStream(
                    await until_gone(request.receive, self._take(request, asked)), account, self.settings
                )
            taken, answered = await until_gone(request.receive, self._result(request, asked))
            account.answered(answered)
            return JSONResponse(whole(taken, answered).model_dump())
        except Refusal as refusal:
            account.refused(refusal)
            raise
        except ClientGone:
            account.gone()
            return Response(status_code=GONE)
        except Exception:
            account.refused(defect())
            raise

    async def _take(self, request: Request, asked: Asked) -> Taken:
        return await self.desk.take(asked, self._follow(request, asked.model))

    async def _result(self, request: Request, asked: Asked) -> tuple[Taken, Answered]:
        with await self._take(request, asked) as taken:
            return taken, await taken.result()

    def _follow(self, request: Request, model: str) -> Callable[[int], None] | None:
        spans = self._spans
        return None if spans is None else lambda query: spans.expect(query, model, request.headers)

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self.desk.targets]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name not in self.desk.targets:
            raise Refusal(404, "no such model; /v1/models lists them", param="model", code="model_not_found")
        return JSONResponse(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        target = self.desk.targets[name]
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "octavo",
            "max_model_len": self.desk.octavo.placed.context,
            "octavo": {"policy": target.policy, "candidates": target.candidates},
        }

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _ready(self, _: Request) -> Response:
        ready, octavo = self.desk.ready, self.desk.octavo
        state = {
            "status": "ready" if ready else "not ready",
            "dead": sorted(octavo.loop.dead),
            "provider": octavo.provider,
            "fallback": octavo.placed.choice.fallback,
        }
        return JSONResponse(state, 200 if ready else 503)

    async def _scrape(self, _: Request) -> Response:
        return Response(generate_latest(self.metrics.scraped), media_type=CONTENT_TYPE_LATEST)

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(document(list(self.desk.targets), keyed=bool(self.settings.api_keys)))


def parse(kind: type[Parsed], body: bytes) -> Parsed:
    """A strict reading of a body: NaN, infinities, lone surrogates and unknown fields are refused."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise malformed(error) from None
