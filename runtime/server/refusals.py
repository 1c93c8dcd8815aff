"""Why a request gets no answer, in the error JSON of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
SHOWN = 64  # characters of a client's own words that come back to it


class Problem(BaseModel):
    """What went wrong: `param` names the field, `code` is for programs."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Error(BaseModel):
    """The body of every response that is not a success."""

    error: Problem


class Refusal(Exception):
    """Ends a request with a status; nothing of it is left behind."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.problem = Problem(message=message, type=TYPES.get(status, "invalid_request_error"), param=param, code=code)

    @property
    def body(self) -> dict[str, Any]:
        return {"error": self.problem.model_dump()}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


EITHER = {
    "prompt": "must be one text, or one list of token ids",
    "stop": "must be a text, or a list of texts, none of them empty",
    "content": "must be a text, or a list of text parts",
}


def malformed(error: ValidationError) -> Refusal:
    """The first thing that is wrong with a body; values that the client sent are not repeated."""
    first = error.errors(include_url=False, include_input=False)[0]
    loc = first["loc"]
    fork = next((place for place, name in enumerate(loc) if name in EITHER), None)
    param = _path(loc if fork is None else loc[: fork + 1])
    if first["type"] == "json_invalid":
        return Refusal(400, "the body is not JSON that can be read", code="invalid_json")
    if first["type"] in ("extra_forbidden", "none_required") or first.get("ctx", {}).get("max_length") == 0:
        return Refusal(400, f"{param}: this field is not supported", param=param, code="unsupported_field")
    message = first["msg"] if fork is None or len(loc) == fork + 1 else EITHER[str(loc[fork])]
    return Refusal(400, f"{param or 'body'}: {message}", param=param, code="invalid_value")


def _path(loc: Sequence[int | str]) -> str | None:
    return ".".join(map(str, loc)).encode("ascii", "replace").decode()[:SHOWN] or None


async def on_refusal(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return error.response()


async def on_http(_: Request, error: Exception) -> JSONResponse:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)
    return _no_way(error.status_code, error.headers or {}).response()


def _no_way(status: int, headers: Mapping[str, str]) -> Refusal:
    """404 or 405, as a client library shows it."""
    if status == 405:
        return Refusal(405, f"this path takes {headers.get('Allow', 'another method')}", code="method", headers=headers)
    return Refusal(status, "no such path; /openapi.json lists them, none ends in a slash", code="path", headers=headers)


async def on_failure(_: Request, __: Exception) -> JSONResponse:
    """A defect of ours: the log has the traceback, the client does not."""
    return defect().response()


def defect() -> Refusal:
    return Refusal(500, "internal error", code="internal_error")
