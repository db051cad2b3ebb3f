"""Reads photos from a request's body: multipart/form-data (RFC 7578) or one raw image, in memory alone.

Limits apply while the body is read: to all its bytes, to each photo, to the number of photos, to the bytes of all requests, and
to the time in which each photo must arrive. Nothing is written to disk. A photo's file name is echoed but never opened.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers

from showtell.serve.budget import ByteBudget
from showtell.serve.errors import RequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "image"
# A file name that is not ASCII as Python's requests and other clients send it (RFC 5987): filename*=utf-8''%E6%97%A5.png
_EXTENDED_NAME = re.compile(rb"""filename\*\s*=\s*"?([\w-]*)'[\w-]*'([^\s;"]*)""", re.IGNORECASE)
_NAME_LENGTH = 255  # most characters of an echoed file name


@dataclass(slots=True)
class Upload:
    """One uploaded photo. `data` is None where it is larger than the limit; `size` counts its bytes in any case.

    Its bytes belong to the budget until `release`.
    """

    name: str
    data: bytes | None
    size: int
    budget: ByteBudget

    def release(self) -> None:
        """Releases the bytes; a second call does nothing."""
        if self.data is not None:
            self.budget.give(len(self.data))
            self.data = None


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Limits of a request: bytes of the body, bytes of a photo, number of photos, seconds until a photo has arrived."""

    body_bytes: int
    photo_bytes: int
    photos: int
    seconds: float


async def uploads(
    chunks: AsyncIterator[bytes], headers: Headers, limits: UploadLimits, budget: ByteBudget
) -> AsyncGenerator[Upload]:
    """The photos of a body, each as soon as it has arrived. Raises RequestError for malformed bodies and beyond limits."""
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limits.body_bytes:
        raise _body_too_large(limits)
    parts = _parts(headers.get("content-type"), limits, budget)
    read = count = 0
    clock = asyncio.get_running_loop().time
    due = clock() + limits.seconds
    try:
        while True:
            try:
                async with asyncio.timeout_at(due):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                message = f"the next photo did not arrive within {limits.seconds:g} seconds"
                raise RequestError(408, "upload-too-slow", message) from None
            if chunk is None:
                parts.end()
            else:
                read += len(chunk)
                if read > limits.body_bytes:
                    raise _body_too_large(limits)
                parts.feed(chunk)
            while parts.done:
                count += 1
                if count > limits.photos:
                    message = f"more than {limits.photos} photos in one request; send them in several"
                    raise RequestError(413, "too-many-photos", message)
                yield parts.done.popleft()
                due = clock() + limits.seconds
            if chunk is None:
                break
    finally:
        parts.close()
    if count == 0:
        raise RequestError(400, "bad-request", f"there is no photo in the body: send the field {FIELD!r}, or the image itself")


def _body_too_large(limits: UploadLimits) -> RequestError:
    return RequestError(
        413, "body-too-large", f"the body is larger than {limits.body_bytes:,} bytes; send fewer photos at once"
    )


def _parts(content_type: str | None, limits: UploadLimits, budget: ByteBudget) -> "_Raw | _Multipart":
    kind, parameters = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        boundary = parameters.get(b"boundary")
        if not boundary:
            raise RequestError(400, "bad-request", "the content type multipart/form-data has no boundary")
        return _Multipart(boundary, limits, budget)
    if kind.startswith(b"image/") or kind in (b"", b"application/octet-stream"):
        return _Raw(limits, budget)
    raise RequestError(
        415,
        "unsupported-content-type",
        f"content type {kind.decode('latin-1')!r}; send multipart/form-data with the field {FIELD!r}, or an image's bytes as "
        "image/* or application/octet-stream",
    )


class _Parts:
    """Collects the bytes of photos; complete photos wait in `done`."""

    def __init__(self, limits: UploadLimits, budget: ByteBudget) -> None:
        self.done: deque[Upload] = deque()
        self._limits = limits
        self._budget = budget
        self._pieces: list[bytes] = []
        self._size = 0  # bytes of the arriving photo
        self._held = 0  # bytes of it in memory
        self._number = 0

    def close(self) -> None:
        """Releases the photos that nobody took."""
        self._drop()
        for upload in self.done:
            upload.release()

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limits.photo_bytes:
            self._drop()  # further bytes are only counted
        else:
            self._budget.take(len(piece))
            self._held += len(piece)
            self._pieces.append(piece)

    def _drop(self) -> None:
        self._pieces.clear()
        self._budget.give(self._held)
        self._held = 0

    def _finish(self, name: str | None) -> None:
        self._number += 1
        data = b"".join(self._pieces) if self._size <= self._limits.photo_bytes else None
        self.done.append(Upload((name or f"photo-{self._number}")[:_NAME_LENGTH], data, self._size, self._budget))
        self._pieces.clear()
        self._size = self._held = 0


class _Raw(_Parts):
    """Reads a body that is one image."""

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the body."""
        self._add(chunk)
        if self._size > self._limits.photo_bytes:
            message = f"the photo is larger than {self._limits.photo_bytes:,} bytes, the limit of a photo"
            raise RequestError(413, "body-too-large", message)

    def end(self) -> None:
        """Ends the body."""
        if self._size:  # an empty body has no photo, rather than an empty one
            self._finish(None)


class _Multipart(_Parts):
    """Reads a body of parts that are all named `image`."""

    def __init__(self, boundary: bytes, limits: UploadLimits, budget: ByteBudget) -> None:
        super().__init__(limits, budget)
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        self._ended = False
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._name: str | None = None
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise RequestError(400, "bad-request", f"the multipart boundary is not usable: {error}") from None

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the body."""
        if self._ended:  # bytes after the last boundary are ignored (RFC 2046, section 5.1.1)
            return
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise RequestError(400, "bad-request", f"the multipart body is malformed: {error}") from None

    def end(self) -> None:
        """Ends the body."""
        if not self._ended:
            raise RequestError(400, "bad-request", "the multipart body ends before its closing boundary")

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _on_headers_finished(self) -> None:
        _, parameters = parse_options_header(self._headers.get(b"content-disposition"))
        field = parameters.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise RequestError(400, "bad-request", f"form field {field!r} is not known; photos go into {FIELD!r}")
        name = parameters.get(b"filename", b"").decode("utf-8", "replace")
        if b"filename" not in parameters:
            extended = _EXTENDED_NAME.search(self._headers[b"content-disposition"])
            if extended is None:
                raise RequestError(400, "bad-request", f"form field {FIELD!r} is text and not a file: it has no file name")
            charset = "latin-1" if extended[1].lower() == b"iso-8859-1" else "utf-8"
            name = unquote_to_bytes(extended[2]).decode(charset, "replace")
        self._name = name

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._add(data[start:end])

    def _on_part_end(self) -> None:
        self._finish(self._name)

    def _on_end(self) -> None:
        self._ended = True
