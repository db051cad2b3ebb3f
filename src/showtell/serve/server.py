"""Serves the application with uvicorn: slow clients are cut off, and SIGTERM ends after accepted requests are answered."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from showtell.captioners.base import ForeignCaptioner
from showtell.serve.app import create_app
from showtell.serve.errors import error_body
from showtell.serve.listening import address
from showtell.serve.logs import LOG
from showtell.serve.models import BundleCaptioner
from showtell.serve.service import Service
from showtell.serve.settings import ServiceSettings

_READ_BYTES = 64 * 1024  # read from a connection at a time; asyncio's 256 kB add up over hundreds of connections
_KEEP_ALIVE = 5  # seconds without a request


def run(captioner: BundleCaptioner | ForeignCaptioner, settings: ServiceSettings, sockets: Sequence[socket.socket]) -> None:
    """Serves on sockets of `listening` until SIGTERM, or until SIGINT, which raises KeyboardInterrupt at the end."""
    files = [Path(opened.getsockname()) for opened in sockets if isinstance(opened.getsockname(), str)]
    try:
        Server(captioner, settings).run(list(sockets))
    finally:
        for file in files:
            file.unlink(missing_ok=True)


class Server(uvicorn.Server):
    """A uvicorn server of the application; `url` is set once it has `started`."""

    def __init__(self, captioner: BundleCaptioner | ForeignCaptioner, settings: ServiceSettings) -> None:
        app = create_app(captioner, settings)
        config = uvicorn.Config(
            app,
            http=_protocol(settings),
            ws="none",
            loop="asyncio",
            log_config=None,  # `logs` configures the log
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing depends on the client's address
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=int(settings.deadline) + 1,
        )
        super().__init__(config)
        self.service: Service = app.state.service
        self.url = ""
        self._interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and logs the address."""
        await super().startup(sockets)
        if self.started and sockets:
            self.url = address(sockets[0])
            LOG.info(self.url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops after accepted requests; a second SIGINT stops at once."""
        self._interrupted = self._interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals; unlike uvicorn's, it does not raise SIGTERM again at the end, since that is no failure."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._interrupted:
            raise KeyboardInterrupt

    async def shutdown(self, sockets: Any = None) -> None:
        """Stops accepting requests, answers accepted ones and ends."""
        self.service.ready = False
        await super().shutdown(sockets)


def _protocol(settings: ServiceSettings) -> type[H11Protocol]:
    class Guarded(H11Protocol):
        """uvicorn's protocol with a time limit for a request's head, which uvicorn lacks."""

        _head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transport.max_size = _READ_BYTES  # type: ignore[attr-defined]
            if len(self.connections) > settings.max_connections:
                transport.abort()
            else:
                self._await_head()

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and not self.cycle.response_complete:
                self._forget_head()

        def on_response_complete(self) -> None:
            self._await_head()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_head()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            body = json.dumps(error_body("bad-request", msg)).encode()
            head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            self.transport.close()

        def _await_head(self) -> None:
            self._forget_head()
            self._head = self.loop.call_later(settings.head_timeout, self.timeout_keep_alive_handler)

        def _forget_head(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

    return Guarded
