"""Around every request: whom it may be from, security headers, the count for metrics and log, the optional bearer token."""

import hashlib
import hmac
import re
import time
import uuid
from typing import Annotated, Any

from fastapi import Depends, Header
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from showtell.serve.errors import BODY_READ, ErrorAnswer, RequestError
from showtell.serve.logs import LOG, log_request
from showtell.serve.metrics import Metrics
from showtell.serve.settings import ServiceSettings, host_name, is_loopback

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
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # one that a proxy in front gave


class Guard:
    """ASGI middleware: adds the headers, notes when a body was read to its end, counts and logs requests, answers faults.

    HEAD is answered as GET is, without the body, and a path that ends in a slash as the one without it.
    """

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
        method = scope["method"]
        given = Headers(scope=scope).get("x-request-id", "")
        number = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        asked = {**scope, "path": scope["path"].rstrip("/") or "/", "method": "GET" if method == "HEAD" else method}

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                asked[BODY_READ] = True
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS, (b"x-request-id", number.encode())]
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(asked, receiving, sending)
        except Exception:
            if status:
                raise  # the answer has begun: all that is left is to break it off
            LOG.exception("request %s failed", number)
            await ErrorAnswer(500, "internal", "the service failed on this request; its log says why")(
                asked, receiving, sending
            )
        finally:
            # Never the path itself: anybody could make up new ones.
            other = "/static" if asked["path"].startswith("/static/") else "unmatched"
            route = getattr(asked.get("route"), "path", other)
            method = method if method in ("GET", "POST", "HEAD", "OPTIONS") else "other"
            taken = time.perf_counter() - began
            self._metrics.requests.labels(method, route, str(status or 499)).inc()
            self._metrics.seconds.labels(route).observe(taken)
            log_request(id=number, method=method, route=route, status=status or 499, seconds=round(taken, 4))


class Door:
    """ASGI middleware: refuses what the page of another site sends, whatever name that site goes by.

    A site can have its own name mean this machine (DNS rebinding), so that its pages count as this service's own. Such requests
    ask for that name: only names on the list, loopback's and the very address that was connected to are answered. An address is
    nothing that a site could make up. Pages of sites by other names say so in `Origin`; what is no page says nothing.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in settings.hosts)
        self._origins = settings.origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host"), headers.get("origin")
            if host is not None and not self._is_ours(host, scope):
                message = f"this service does not answer to the name {host!r}; who runs it can allow that name"
                await ErrorAnswer(421, "unknown-host", message)(scope, receive, send)
                return
            if origin is not None and origin not in self._origins and not _is_same(origin, host or ""):
                message = f"pages of {origin!r} may not use this service; who runs it can allow that site"
                await ErrorAnswer(403, "foreign-origin", message)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_ours(self, host: str, scope: Scope) -> bool:
        name = host_name(host)
        return name is not None and (name in self._hosts or is_loopback(name) or name == (scope.get("server") or ("",))[0])


def _is_same(origin: str, host: str) -> bool:
    """Whether pages of `origin` came from `host`. A proxy may have ended TLS: the scheme says the port alone."""
    scheme, _, site = origin.partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return bool(site) and site.removesuffix(port).lower() == host.removesuffix(port).lower()


def bearer(token: str) -> Any:
    """A FastAPI dependency that lets only requests with this bearer token pass (RFC 6750)."""
    expected = _digest(token)

    def check(authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> None:
        scheme, _, given = (authorization or "").partition(" ")
        if authorization is None:
            raise _unauthorized("this service asks for its bearer token")
        if scheme.lower() != "bearer":
            raise _unauthorized("this service asks for its token as `Authorization: Bearer TOKEN`")
        if not hmac.compare_digest(_digest(given.strip()), expected):
            raise _unauthorized("the bearer token is not this service's", ', error="invalid_token"')

    return [Depends(HTTPBearer(auto_error=False)), Depends(check)]  # the first one is for OpenAPI alone


def _digest(token: str) -> bytes:
    # Digests are of one length, so that the time says nothing about the token's either.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _unauthorized(message: str, error: str = "") -> RequestError:
    return RequestError(401, "unauthorized", message, {"WWW-Authenticate": f'Bearer realm="showtell"{error}'})
