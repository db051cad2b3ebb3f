"""Around every request: security headers, the count for the metrics, and the optional bearer token."""

import hashlib
import hmac
import logging
import time
from typing import Annotated, Any

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from showtell.serve.errors import BODY_READ, ErrorAnswer, RequestError
from showtell.serve.metrics import Metrics

# The page is served whole from here: no script, style, font or picture of another host, and none written into the page itself.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
    )
)
_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_LOG = logging.getLogger("uvicorn.error")


class Guard:
    """ASGI middleware: adds the headers, notes when a body was read to its end, counts requests by route, answers faults."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        began = time.perf_counter()

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                scope[BODY_READ] = True
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Exception:
            if status:
                raise  # the answer has begun: all that is left is to break it off
            _LOG.exception("a request failed")
            await ErrorAnswer(500, "internal", "the service failed on this request; its log says why")(
                scope, receiving, sending
            )
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")  # never the path itself: anybody could make up new ones
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
            self._metrics.requests.labels(method, route, str(status or 499)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)


def bearer(token: str) -> Any:
    """A FastAPI dependency that lets only requests with this bearer token pass (RFC 6750)."""
    expected = hashlib.sha256(token.encode()).digest()

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]) -> None:
        # Digests are of one length, so that the time says nothing about the token's either.
        found = hashlib.sha256((given.credentials if given else "").encode("utf-8", "surrogateescape")).digest()
        if not hmac.compare_digest(found, expected):
            raise RequestError(
                401, "unauthorized", "this service asks for its bearer token", {"WWW-Authenticate": 'Bearer realm="showtell"'}
            )

    return Depends(check)
