"""The OpenAPI document, made from the models that requests and answers are checked with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from octavo.runtime.server.answers import ChatCompletion, Completion
from octavo.runtime.server.refusals import Error
from octavo.runtime.server.requests import ChatRequest, CompletionRequest

REFUSED = {
    "400": "A field is wrong, unknown, or not supported by the model that is asked.",
    "404": "No such model.",
    "408": "The body took too long to arrive.",
    "413": "The body is too long.",
    "415": "The body is not application/json.",
    "431": "The head is too long.",
    "429": "The queue is full; Retry-After says when to come back.",
    "500": "No candidate came.",
    "503": "The server is shutting down.",
    "504": "No candidate came in time.",
}
KEY = {"401": "A valid API key is needed.", "403": "Only this machine is served."}


def document(names: Iterable[str], *, keyed: bool) -> dict[str, Any]:
    """OpenAPI 3.1; `names` are the models that may be asked, `keyed` says whether an API key is needed."""
    models: list[type[BaseModel]] = [ChatRequest, CompletionRequest, ChatCompletion, Completion, Error]
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    for model in (ChatRequest, CompletionRequest):
        schemas["$defs"][model.__name__]["properties"]["model"]["enum"] = list(names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "octavo", "version": "1", "description": "An ensemble of language models as one model."},
        "paths": {
            "/v1/chat/completions": {"post": _ask("Answer a conversation.", ChatRequest, ChatCompletion)},
            "/v1/completions": {"post": _ask("Go on with a text.", CompletionRequest, Completion)},
            "/v1/models": {"get": _get("The models that may be named.")},
            "/v1/models/{model}": {"get": _get("One of them.", _MODEL, "404")},
            "/health": {"get": _get("Whether the process is alive. Needs no key.") | {"security": []}},
            "/ready": {"get": _get("Whether queries are taken.", None, "503", any_body=True)},
            "/metrics": {"get": _metrics()},
        },
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}] if keyed else [],
    }


_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _ask(summary: str, asked: type[BaseModel], answer: type[BaseModel]) -> dict[str, Any]:
    events: dict[str, Any] = {"text/event-stream": {}}  # OpenAPI 3.1 has no schema for one event of many
    good = {"description": "The answer.", "content": _json(answer.__name__) | events}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _json(asked.__name__)},
        "responses": {"200": good} | _refused(REFUSED | KEY),
    }


def _get(
    summary: str, parameter: dict[str, Any] | None = None, *statuses: str, any_body: bool = False
) -> dict[str, Any]:
    anything = {"content": {"application/json": {"schema": {"type": "object"}}}}
    texts = {status: REFUSED[status] for status in statuses}
    refused = {each: {"description": text} | anything for each, text in texts.items()} if any_body else _refused(texts)
    return {
        "summary": summary,
        "parameters": [parameter] if parameter else [],
        "responses": {"200": {"description": summary} | anything} | refused | _refused(KEY | _BODY),
    }


_BODY = {status: REFUSED[status] for status in ("408", "413", "415", "431")}


def _metrics() -> dict[str, Any]:
    text = {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": "Metrics.", "responses": {"200": text} | _refused(KEY | _BODY)}


def _refused(texts: dict[str, str]) -> dict[str, Any]:
    return {status: {"description": text, "content": _json("Error")} for status, text in texts.items()}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
