"""Streams records of many photos in one request as JSON lines, in the order sent.

Photos are captioned while later ones arrive. The body is read while the answer is sent, so that clients work that read nothing
before they have sent everything.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from showtell.serve.errors import ErrorAnswer, RequestError, error_body
from showtell.serve.models import Wanted
from showtell.serve.service import Service
from showtell.serve.upload import Upload
from showtell.types import Record

MEDIA_TYPE = "application/x-ndjson"


class JsonLines(Response):
    """A response of JSON lines. An error before the first line becomes the response, with its status."""

    media_type = MEDIA_TYPE

    def __init__(self, lines: AsyncGenerator[dict[str, Any]]) -> None:
        self._lines = lines
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends each line as soon as it is ready."""
        started = False
        try:
            async with contextlib.aclosing(self._lines):
                async for line in self._lines:
                    if not started:
                        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                        started = True
                    await send({"type": "http.response.body", "body": _encode(line), "more_body": True})
        except RequestError as error:
            if not started:
                await ErrorAnswer(error.status, error.code, str(error), error.headers)(scope, receive, send)
                return
            await send({"type": "http.response.body", "body": _encode(error_body(error.code, str(error))), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _encode(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


async def record_lines(
    request: Request, service: Service, incoming: AsyncGenerator[Upload], wanted: Wanted
) -> AsyncGenerator[dict[str, Any]]:
    """The records of `incoming` as JSON objects. Raises RequestError after the records before a broken part of the body.

    A request has at most two batches of photos at a time, so that other requests get their turn.
    """
    ahead = asyncio.Semaphore(2 * service.settings.batch_size)
    working: set[asyncio.Task[Record]] = set()
    coming: asyncio.Queue[tuple[str, asyncio.Task[Record]] | RequestError | None] = asyncio.Queue()

    def done(task: asyncio.Task[Record]) -> None:
        working.discard(task)
        ahead.release()

    async def feed() -> None:
        try:
            async with contextlib.aclosing(incoming):
                async for upload in incoming:
                    try:
                        await ahead.acquire()
                    except BaseException:
                        upload.release()
                        raise
                    task = await service.submit(upload, wanted, wait=True)
                    working.add(task)
                    task.add_done_callback(done)
                    coming.put_nowait((upload.name, task))
                    await service.budget.room()
            coming.put_nowait(None)
            await until_disconnected(request)
        except RequestError as error:
            coming.put_nowait(error)
            return
        except ClientDisconnect:
            coming.put_nowait(None)
        for task in working:
            task.cancel()

    feeder = asyncio.create_task(feed())
    try:
        while (item := await coming.get()) is not None:
            if isinstance(item, RequestError):
                raise item
            name, task = item
            await asyncio.wait([task])
            if task.cancelled():
                return
            yield _line(name, task)
    finally:
        feeder.cancel()
        for task in list(working):
            task.cancel()


def _line(name: str, task: asyncio.Task[Record]) -> dict[str, Any]:
    try:
        return task.result().to_json()
    except RequestError as error:
        return {"path": name, "status": "error", **error_body(error.code, str(error))}


async def until_disconnected(request: Request) -> None:
    """Waits until the client disconnects; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
