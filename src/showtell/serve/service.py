"""Uploads in, records out: what the HTTP routes are a thin layer over."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from showtell.arrays import Array
from showtell.bundle import Bundle
from showtell.errors import ImageError
from showtell.serve.batcher import Batcher
from showtell.serve.budget import ByteBudget
from showtell.serve.errors import RequestError, overloaded
from showtell.serve.metrics import Metrics
from showtell.serve.reading import Reader
from showtell.serve.settings import ServiceSettings
from showtell.serve.upload import Upload
from showtell.types import AttentionMap, Caption, DecodeOptions, Record


class Model(Protocol):
    """What the service asks of a `runtime.Captioner`."""

    bundle: Bundle

    def features(self, pixels: Array) -> Array:
        """uint8 (B, size, size, 3) to float32 (B, 49, 2048)."""
        ...

    def search(self, features: Array, options: DecodeOptions) -> list[tuple[Caption, ...]]:
        """Captions of each photo, best first."""
        ...

    def attention(self, features: Array, captions: Sequence[Caption], style: str) -> list[Array]:
        """For one caption of each photo, found in that style: float32 (tokens, 7, 7)."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted of one photo: uint8 (size, size, 3), how to search, and whether to say where the model looked."""

    pixels: Array
    options: DecodeOptions
    attention: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A photo's captions, best first, and the attention maps of the best where they were asked for."""

    captions: tuple[Caption, ...]
    attention: tuple[AttentionMap, ...] | None = None


class Service:
    """Captions uploads, many requests in one batch; belongs to one event loop once started."""

    def __init__(self, model: Model, settings: ServiceSettings) -> None:
        self.model = model
        self.settings = settings
        self.metrics = Metrics()
        self.ready = False
        self.waiting = 0  # photos accepted and not answered

    async def start(self) -> None:
        """Captions a grey picture in a full batch, so that the model's memory is taken now and faults show at once."""
        settings, preprocessing = self.settings, self.model.bundle.preprocessing
        self.budget = ByteBudget(settings.max_held_bytes)
        self.places = asyncio.Semaphore(settings.places)
        self._reader = Reader(preprocessing, settings)
        self._batcher = Batcher(self._caption_batch, settings.batch_size)
        self._batcher.start()
        self.metrics.watch(held=lambda: self.budget.held, waiting=lambda: self.waiting)
        grey = Ask(np.full((preprocessing.size, preprocessing.size, 3), 128, np.uint8), self.model.bundle.search, False)
        await asyncio.gather(*(self._batcher(grey) for _ in range(settings.batch_size)))
        self.ready = True

    async def close(self) -> None:
        """Ends the threads. The server comes here when every request has been answered."""
        self.ready = False
        await self._batcher.close()
        self._reader.close()

    def check_room(self) -> None:
        """Raises RequestError (503) where no photo can be taken now."""
        if self.places.locked():
            self.metrics.refused.inc()
            raise overloaded(f"{self.settings.places} photos are waiting already", self._retry_after())

    def _retry_after(self) -> int:
        """Seconds until half of the places are free again, by how long batches took of late."""
        batches = self.settings.places / 2 / self.settings.batch_size
        return max(1, min(60, round(batches * self.metrics.recent_batch_seconds)))

    async def submit(self, upload: Upload, options: DecodeOptions, *, attention: bool, wait: bool) -> "asyncio.Task[Record]":
        """Takes a photo, whose record the task gives; cancel the task where nobody wants it any more.

        Where all places are taken it waits for one, or raises RequestError (503).
        """
        try:
            if not wait:
                self.check_room()
            await self.places.acquire()
        except BaseException:
            upload.release()
            raise
        self.waiting += 1
        task = asyncio.create_task(self._record(upload, options, attention))
        task.add_done_callback(lambda task: self._leave(task, upload))
        return task

    def _leave(self, task: "asyncio.Task[Record]", upload: Upload) -> None:
        if not task.cancelled():
            task.exception()  # may be nobody's by now: without this, asyncio would log it
        upload.release()  # a task that was cancelled before it began has not
        self.waiting -= 1
        self.places.release()

    async def _record(self, upload: Upload, options: DecodeOptions, attention: bool) -> Record:
        name, model = upload.name, self.model.bundle.name
        try:
            async with asyncio.timeout(self.settings.deadline):
                photo = await self._reader.read(upload)
                answer = await self._batcher(Ask(photo.pixels, options, attention))
        except ImageError as error:
            self.metrics.photos.labels(error.code).inc()
            return Record.failed(name, error, model, remedy=False)
        except TimeoutError:
            self.metrics.photos.labels("deadline").inc()
            message = f"no caption within {self.settings.deadline:g} seconds; try again"
            raise RequestError(503, "deadline", message, {"Retry-After": str(self._retry_after())}) from None
        self.metrics.photos.labels("ok").inc()
        return Record(name, "ok", answer.captions, photo.width, photo.height, model, attention=answer.attention)

    def _caption_batch(self, asks: Sequence[Ask]) -> list[Answer]:
        """One encoder batch; those that are searched for alike are searched together."""
        with self.metrics.batch(len(asks)):
            features = self.model.features(np.stack([ask.pixels for ask in asks]))
            alike: dict[tuple[DecodeOptions, bool], list[int]] = {}
            for row, ask in enumerate(asks):
                alike.setdefault((ask.options, ask.attention), []).append(row)
            answers: dict[int, Answer] = {}
            for (options, attention), rows in alike.items():
                part = features if len(rows) == len(asks) else features[rows]
                captions = self.model.search(part, options)
                maps: list[Any] = [None] * len(rows)
                if attention:
                    found = self.model.attention(part, [best for best, *_ in captions], options.style)
                    maps = [tuple(tuple(map(tuple, grid)) for grid in looks.tolist()) for looks in found]
                answers.update(zip(rows, map(Answer, captions, maps), strict=True))
            return [answers[row] for row in range(len(asks))]
