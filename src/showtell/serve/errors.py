"""Errors of requests, all of the form {"error": {"code", "message"}}. docs/service.md lists the codes."""

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
    "upstream",
]
ErrorCode = RequestCode | RecordCode
CODES: tuple[str, ...] = (*get_args(RequestCode), *get_args(RecordCode))

RECORD_STATUS: Mapping[RecordCode, int] = {
    "not-found": 422,  # only paths have this error, and clients cannot send paths
    "empty": 400,
    "too-large": 413,
    "not-an-image": 415,
    "unsupported-format": 415,
    "too-many-pixels": 413,
    "truncated": 422,
    "unreadable": 422,
    "no-caption": 502,  # of captioners behind a server
}
BODY_READ = "showtell.body_read"  # key of an ASGI scope: the request's body was read to the end
_DRAIN_BYTES = 4 * 2**20
_DRAIN_SECONDS = 1.0


class RequestError(ShowtellError):
    """An error of a request, answered with HTTP status `status`."""

    def __init__(self, status: int, code: RequestCode, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


def overloaded(message: str, retry_after: int = 1) -> RequestError:
    """The error of an overloaded service (503), with a Retry-After header in seconds."""
    return RequestError(503, "overloaded", f"{message}; try again", {"Retry-After": str(retry_after)})


def error_body(code: ErrorCode, message: str) -> dict[str, Any]:
    """The JSON object of an error."""
    return {"error": {"code": code, "message": message}}


class ErrorAnswer(JSONResponse):
    """The response to a request with an error. If the request's body was not read to the end, the connection closes.

    The client may still be sending the body. Closing at once would reset the connection, and the client might not see the
    answer. So the answer is sent first, then a part of the body is read and dropped, and then the connection closes.
    """

    def __init__(self, status: int, code: ErrorCode, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error_body(code, message), status, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer; reads and drops a limited part of an unread body."""
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


def _validation_message(error: Mapping[str, Any]) -> str:
    name = error["loc"][-1]
    if error["type"] == "extra_forbidden":
        from showtell.serve.schemas import CaptionQuery  # which imports this module

        return f"{name}: there is no such option; there are {', '.join(CaptionQuery.model_fields)}"
    return f"{name}: {error['input']!r} is not allowed: {error['msg']}"


def add_handlers(app: FastAPI) -> None:
    """Makes the app answer every error with an `ErrorAnswer`; `security.Guard` answers unexpected exceptions."""
    for kind in (RequestError, OptionError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    match error:
        case RequestError():
            return ErrorAnswer(error.status, error.code, str(error), error.headers)
        case OptionError():
            return ErrorAnswer(422, "invalid-option", str(error))
        case RequestValidationError():
            return ErrorAnswer(422, "invalid-option", "; ".join(map(_validation_message, error.errors())))
        case HTTPException():
            known: dict[int, RequestCode] = {401: "unauthorized", 404: "no-such-path", 405: "method-not-allowed"}
            code = known.get(error.status_code, "bad-request")
            headers = dict(error.headers or {})
            if headers.get("Allow") == "GET":
                headers["Allow"] = "GET, HEAD"  # `security.Guard` answers HEAD
            return ErrorAnswer(error.status_code, code, f"{request.url.path}: {error.detail}", headers)
    return Response(status_code=499)  # for the metrics alone: the client has gone
