"""A service to test against: the real server in a thread, over a model whose answers are known and which can be held up."""

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import numpy as np
from PIL import Image

from showtell.bundle import Bundle
from showtell.serve.listening import listen
from showtell.serve.server import Server
from showtell.serve.settings import ServiceSettings
from showtell.types import Caption, ConfidenceOptions, DecodeOptions, Description, Label

SOON = 60.0  # seconds that a test waits for what should happen at once: machines that run tests are busy


@cache
def bundle() -> Bundle:
    return Bundle.find(None)


@dataclass
class GreyModel:
    """Captions a photo with its mean grey. While `going` is unset it works on its batch and does not finish."""

    bundle: Bundle = field(default_factory=bundle)
    batches: list[int] = field(default_factory=list)
    searched: list[tuple[int, DecodeOptions]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    going: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None
    attends: bool = True
    parallel: int = 1

    def __post_init__(self) -> None:
        self.going.set()

    def features(self, pixels: np.ndarray, *, threads: int) -> np.ndarray:
        assert threads == 1  # the service has threads of its own
        greys = pixels.reshape(len(pixels), -1).mean(1).round()
        self.batches.append(len(pixels))
        self.seen.extend(int(grey) for grey in greys)
        self.going.wait(SOON)
        if self.fault is not None:
            raise self.fault
        return np.broadcast_to(greys[:, None, None], (len(pixels), 49, 2))

    def describe(
        self, features: np.ndarray, options: DecodeOptions, trust: ConfidenceOptions, *, threads: int
    ) -> list[Description]:
        assert threads == 1
        self.searched.append((len(features), options))
        greys = [int(photo[0, 0]) for photo in features]
        found = [
            tuple(
                Caption(f"grey {grey}", -0.5 - n, ("grey", str(grey)), pieces=("grey", f" {grey}"), cut=options.max_length == 2)
                for n in range(options.num_captions)
            )
            for grey in greys
        ]
        if self.bundle.confidence is None:
            return [Description(captions) for captions in found]
        labels = (Label("fog", 0.8),) if trust.labels else None
        sure = [grey / 255 for grey in greys]  # the lighter the surer
        return [
            Description(captions if confidence >= trust.min_confidence else (), confidence, 0.5, labels)
            for captions, confidence in zip(found, sure, strict=True)
        ]

    def attention_of(self, features: np.ndarray, found: Sequence[Description], style: str) -> list[Any]:
        flat = tuple((1 / 49,) * 7 for _ in range(7))
        return [(flat,) * len(one.captions[0].tokens) if one.captions else None for one in found]


@dataclass
class Served:
    """A running server."""

    server: Server
    model: Any  # a GreyModel, or any captioner
    thread: threading.Thread

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def connect(self) -> socket.socket:
        """A connection to write any bytes to."""
        connection = socket.create_connection(self.address, SOON)
        connection.settimeout(SOON)
        return connection

    def idle(self) -> bool:
        """Whether nothing is held or waiting any more."""
        service = self.server.service
        return service.budget.held == 0 and service.waiting == 0

    def stop(self) -> None:
        self.server.should_exit = True
        if isinstance(self.model, GreyModel):
            self.model.going.set()
        self.thread.join(SOON)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def serving(model: Any = None, *, sockets: list[socket.socket] | None = None, **settings: object) -> Iterator[Served]:
    """A server with these settings, on any free port unless told otherwise."""
    model = model or GreyModel()
    server = Server(model, ServiceSettings(**settings))
    thread = threading.Thread(target=server.run, args=(sockets or listen("127.0.0.1", 0),), daemon=True)
    thread.start()
    until(lambda: server.url != "")
    if isinstance(model, GreyModel):  # of warming up
        model.batches.clear()
        model.searched.clear()
        model.seen.clear()
    served = Served(server, model, thread)
    try:
        yield served
    finally:
        served.stop()


def until(condition: Callable[[], bool]) -> None:
    """Waits for what should come soon."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def photo(grey: int, size: tuple[int, int] = (40, 30), format_: str = "PNG") -> bytes:
    """An encoded photo of one grey."""
    stream = io.BytesIO()
    Image.new("L", size, grey).save(stream, format_)
    return stream.getvalue()


def post(url: str, **options: Any) -> httpx.Response:
    """One POST, over a connection of its own."""
    return httpx.post(url, timeout=SOON, **options)


def request(
    path: str = "/v1/captions", *, body: bytes = b"", length: int | None = None, kind: str = "image/png", headers: str = ""
) -> bytes:
    """A POST as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{headers}"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and everything that came until the server closed the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body
