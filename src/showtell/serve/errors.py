"""Errors of requests, in one shape: {"error": {"code", "message"}}. docs/service.md lists the codes."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from showtell.errors import OptionError, RecordCode, ShowtellError

RequestCode = Literal[
    "bad-request",
    "unauthorized",
    "foreign-origin",
    "no-such-path",
    "method-not-allowed",
    "upload-too-slow",
    "body-too-large",
    "too-many-photos",
    "unsupported-content-type",
    "unknown-host",
    "invalid-option",
    "internal",
    "overloaded",
    "deadline",
]
ErrorCode = RequestCode | RecordCode
CODES: tuple[str, ...] = (*get_args(RequestCode), *get_args(RecordCode))

RECORD_STATUS: Mapping[RecordCode, int] = {
    "not-found": 422,  # of paths only, which no client can give
    "empty": 400,
    "too-large": 413,
    "not-an-image": 415,
    "unsupported-format": 415,
    "too-many-pixels": 413,
    "truncated": 422,
    "unreadable": 422,
    "no-caption": 502,  # of captioners behind a server
}
BODY_READ = "showtell.body_read"  # key of an ASGI scope: its request's body was read to the end
_DRAIN_BYTES = 4 * 2**20
_DRAIN_SECONDS = 1.0


class RequestError(ShowtellError):
    """A request is answered with an error of HTTP status `status`."""

    def __init__(self, status: int, code: RequestCode, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


def overloaded(message: str, retry_after: int = 1) -> RequestError:
    """The answer to what comes too much at once; it may come again after `retry_after` seconds."""
    return RequestError(503, "overloaded", f"{message}; try again", {"Retry-After": str(retry_after)})


def error_body(code: ErrorCode, message: str) -> dict[str, Any]:
    """The one shape of errors."""
    return {"error": {"code": code, "message": message}}


class ErrorAnswer(JSONResponse):
    """An error; where its request's body was not read to the end, also the end of its connection.

    The client may still be sending what was refused. Closing on it at once would reset the connection, and the client might
    never see why. So the answer goes out whole, some of the body is thrown away, and only then does the connection close.
    """

    def __init__(self, status: int, code: ErrorCode, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error_body(code, message), status, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer and, where there is an unread body, throws a bounded part of it away."""
        unread = not scope.get(BODY_READ) and _announces_body(scope)
        close = [(b"connection", b"close")] if unread else []
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers + close})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        if unread:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _announces_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in scope["headers"])


async def _drain(receive: Receive) -> None:
    left = _DRAIN_BYTES
    while left > 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return
        left -= len(message.get("body", b""))


def _complaint(part: Mapping[str, Any]) -> str:
    name = part["loc"][-1]
    if part["type"] == "extra_forbidden":
        from showtell.serve.schemas import CaptionQuery  # which imports this module

        return f"{name}: there is no such option; there are {', '.join(CaptionQuery.model_fields)}"
    return f"{name}: {part['input']!r} is not allowed: {part['msg']}"


def add_handlers(app: FastAPI) -> None:
    """Answers every error in the one shape; faults of the service itself are `security.Guard`'s."""

    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> Response:
        return ErrorAnswer(error.status, error.code, str(error), error.headers)

    @app.exception_handler(OptionError)
    async def option_error(request: Request, error: OptionError) -> Response:
        return ErrorAnswer(422, "invalid-option", str(error))

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        return ErrorAnswer(422, "invalid-option", "; ".join(map(_complaint, error.errors())))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        known: dict[int, RequestCode] = {401: "unauthorized", 404: "no-such-path", 405: "method-not-allowed"}
        code = known.get(error.status_code, "bad-request")
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # which `security.Guard` answers
        return ErrorAnswer(error.status_code, code, f"{request.url.path}: {error.detail}", headers)

    @app.exception_handler(ClientDisconnect)
    async def disconnect(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; it is for the metrics
