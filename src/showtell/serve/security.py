"""The middleware around every request: allowed hosts and origins, security headers, metrics, log, and the bearer token."""

import hashlib
import hmac
import re
import time
import uuid
from typing import Annotated, Any

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from showtell.serve.errors import BODY_READ, ErrorAnswer, RequestError
from showtell.serve.logs import LOG, log_request
from showtell.serve.metrics import Metrics
from showtell.serve.settings import ServiceSettings, host_name, is_loopback

# The page loads scripts, styles, fonts and pictures from this host alone, and has none inline.
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
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # an id from a proxy


class Guard:
    """ASGI middleware: adds headers, notes the end of a body, counts and logs requests, answers unexpected exceptions.

    HEAD is answered like GET without the body, and a path with a slash at its end like the path without it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles an ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        start = time.perf_counter()
        method = scope["method"]
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        inner = {**scope, "path": scope["path"].rstrip("/") or "/", "method": "GET" if method == "HEAD" else method}

        async def inner_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                inner[BODY_READ] = True
            return message

        async def inner_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS, (b"x-request-id", request_id.encode())]
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(inner, inner_receive, inner_send)
        except Exception:
            if status:
                raise  # the answer has begun and can only be broken off
            LOG.exception("request %s failed", request_id)
            answer = ErrorAnswer(500, "internal", "the service failed on this request; its log says why")
            await answer(inner, inner_receive, inner_send)
        finally:
            # Never the path itself: clients could invent any number of them.
            other = "/static" if inner["path"].startswith("/static/") else "unmatched"
            route = getattr(inner.get("route"), "path", other)
            method = method if method in ("GET", "POST", "HEAD", "OPTIONS") else "other"
            seconds = time.perf_counter() - start
            self._metrics.requests.labels(method, route, str(status or 499)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            log_request(id=request_id, method=method, route=route, status=status or 499, seconds=round(seconds, 4))


class AccessControl:
    """ASGI middleware: refuses requests from the pages of other sites.

    A site can map its name to this machine (DNS rebinding), so that browsers take its pages for this service's own. Its
    requests have that name in `Host`: only allowed names, loopback names and the address of the connection are answered. A
    site cannot choose that address. Pages of other sites have their site in `Origin`; clients that are no browsers send no
    `Origin`.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in settings.hosts)
        self._origins = settings.origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles an ASGI request."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host"), headers.get("origin")
            if host is not None and not self._is_allowed(host, scope):
                message = f"this service does not answer to the name {host!r}; who runs it can allow that name"
                await ErrorAnswer(421, "unknown-host", message)(scope, receive, send)
                return
            if origin is not None and origin not in self._origins and not _is_same(origin, host or ""):
                message = f"pages of {origin!r} may not use this service; who runs it can allow that site"
                await ErrorAnswer(403, "foreign-origin", message)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_allowed(self, host: str, scope: Scope) -> bool:
        name = host_name(host)
        return name is not None and (name in self._hosts or is_loopback(name) or name == (scope.get("server") or ("",))[0])


def _is_same(origin: str, host: str) -> bool:
    """Whether `origin` is the site at `host`. A proxy may have ended TLS, so the scheme gives only the port."""
    scheme, _, site = origin.partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return bool(site) and site.removesuffix(port).lower() == host.removesuffix(port).lower()


def bearer(token: str) -> Any:
    """FastAPI dependencies that accept only requests with this bearer token (RFC 6750)."""
    expected = _digest(token)

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]) -> None:
        if given is None:
            raise _unauthorized("this service asks for its bearer token, as `Authorization: Bearer TOKEN`")
        if not hmac.compare_digest(_digest(given.credentials.strip()), expected):
            raise _unauthorized("the bearer token is not this service's", ', error="invalid_token"')

    return [Depends(check)]


def _digest(token: str) -> bytes:
    # Digests have one length, so that the time of the comparison does not tell the token's.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _unauthorized(message: str, error: str = "") -> RequestError:
    return RequestError(401, "unauthorized", message, {"WWW-Authenticate": f'Bearer realm="showtell"{error}'})
