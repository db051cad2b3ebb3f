"""A client of the service (docs/service.md) for asyncio: photos in, records out, a few requests at a time.

>>> async with Client("http://127.0.0.1:8000") as client:
...     async for record in client.records(paths, num_captions=3):
...         print(record.path, record.caption)
"""

import asyncio
from asyncio import sleep
from collections import deque
from collections.abc import AsyncIterator, Iterable
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Self, get_args

from showtell.errors import ImageCode, MissingExtraError, OptionError, ServerError
from showtell.types import Record

try:
    import httpx
except ImportError:
    raise MissingExtraError("client", "the service's client") from None

Photo = str | PathLike[str] | bytes
_OF_ONE_PHOTO = {*get_args(ImageCode), "no-caption"}


class Client:
    """A service at `address`, for `async with`. `token` is its bearer token, `timeout` the seconds of one request.

    A request that meets a busy service is repeated up to `tries` times, when `Retry-After` says. Raises ServerError where the
    service does not answer or refuses the token, OptionError for a search option that it refuses.
    """

    def __init__(
        self, address: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout: float = 60.0, tries: int = 10
    ) -> None:
        self._address, self._tries = address.rstrip("/"), tries
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(base_url=self._address, headers=headers, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def caption(self, photo: Photo, **options: Any) -> Record:
        """The record of a photo, given as a path or encoded bytes; `options` are query parameters of the service.

        A photo that cannot be read gives a record with its error.
        """
        name = "photo" if isinstance(photo, bytes) else fspath(photo)
        try:
            data = photo if isinstance(photo, bytes) else await asyncio.to_thread(Path(photo).read_bytes)
        except OSError as error:
            code = "not-found" if isinstance(error, FileNotFoundError) else "unreadable"
            return Record(name, "error", error_code=code, error_message=f"{name}: {error.strerror}")  # type: ignore[arg-type]
        query = {key: str(value).lower() if isinstance(value, bool) else value for key, value in options.items()}
        headers = {"Content-Type": "application/octet-stream"}
        answer = await self._ask("POST", "/v1/captions", content=data, params=query, headers=headers)
        if answer.status_code == 200:
            return Record.from_json({**answer.json()["results"][0], "path": name})
        about = answer.json()["error"]
        if about["code"] not in _OF_ONE_PHOTO:
            raise OptionError(about["message"])
        return Record(name, "error", error_code=about["code"], error_message=about["message"])

    async def records(self, photos: Iterable[Photo], *, at_once: int = 4, **options: Any) -> AsyncIterator[Record]:
        """A record a photo, in order, with up to `at_once` requests under way."""
        if at_once < 1:
            raise OptionError(f"at_once is {at_once}; it must be at least 1")
        waiting: deque[asyncio.Task[Record]] = deque()
        try:
            for photo in photos:
                waiting.append(asyncio.create_task(self.caption(photo, **options)))
                if len(waiting) == at_once:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def model(self) -> dict[str, Any]:
        """The card of the model that answers, and the limits of a request."""
        card: dict[str, Any] = (await self._ask("GET", "/v1/model")).json()
        return card

    async def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        for left in reversed(range(self._tries)):
            try:
                answer = await self._http.request(method, path, **request)
            except httpx.TransportError as error:
                raise ServerError(
                    f"{self._address}: does not answer ({error or type(error).__name__}); is it running?"
                ) from None
            if answer.status_code != 503 or not left:
                break
            await sleep(min(30.0, float(answer.headers.get("Retry-After", 1))))
        try:
            known = answer.status_code == 200 or answer.json()["error"]["code"] in {*_OF_ONE_PHOTO, "invalid-option"}
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise ServerError(f"{self._address}: status {answer.status_code}: {answer.text[:200]}; check address and token")
        return answer
