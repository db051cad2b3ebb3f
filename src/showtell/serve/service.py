"""Captions uploads: reads them, gathers them into batches and gives their records. The HTTP routes are a thin layer over it."""

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
    """The part of `runtime.Captioner` that the service calls."""

    bundle: Bundle

    def features(self, pixels: Array) -> Array:
        """uint8 (B, size, size, 3) to grid features float32 (B, cells, channels)."""
        ...

    def search(self, features: Array, options: DecodeOptions) -> list[tuple[Caption, ...]]:
        """Captions of each photo, best first."""
        ...

    def attention(self, features: Array, captions: Sequence[Caption], style: str) -> list[Array]:
        """Attention maps of one caption of each photo, searched for in that style: float32 (tokens, side, side)."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """A photo to be captioned: pixels uint8 (size, size, 3), search options, and whether attention maps are wanted."""

    pixels: Array
    options: DecodeOptions
    attention: bool


@dataclass(frozen=True, slots=True)
class Result:
    """A photo's captions, best first, and the attention maps of the best caption where the job wants them."""

    captions: tuple[Caption, ...]
    attention: tuple[AttentionMap, ...] | None = None


class Service:
    """Captions uploads, many requests in one batch; belongs to one event loop once started."""

    def __init__(self, model: Model, settings: ServiceSettings) -> None:
        self.model = model
        self.settings = settings
        self.metrics = Metrics()
        self.ready = False
        self.waiting = 0  # photos accepted whose records are not ready

    async def start(self) -> None:
        """Captions a full batch of a grey picture, so that the model takes its memory now and faults show at once."""
        settings, preprocessing = self.settings, self.model.bundle.preprocessing
        self.budget = ByteBudget(settings.max_held_bytes)
        self.places = asyncio.Semaphore(settings.places)
        self._reader = Reader(preprocessing, settings)
        self._batcher = Batcher(self._caption_batch, settings.batch_size)
        self._batcher.start()
        self.metrics.watch(held=lambda: self.budget.held, waiting=lambda: self.waiting)
        grey = Job(np.full((preprocessing.size, preprocessing.size, 3), 128, np.uint8), self.model.bundle.search, False)
        await asyncio.gather(*(self._batcher(grey) for _ in range(settings.batch_size)))
        self.ready = True

    async def close(self) -> None:
        """Ends the threads. The server calls it after the last request."""
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
        """Takes a photo, whose record the task gives; cancel the task where its client has gone.

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
            task.exception()  # the client may have gone: without this, asyncio would log the error
        upload.release()  # a task that was cancelled before it began has not
        self.waiting -= 1
        self.places.release()

    async def _record(self, upload: Upload, options: DecodeOptions, attention: bool) -> Record:
        name, model = upload.name, self.model.bundle.name
        try:
            async with asyncio.timeout(self.settings.deadline):
                photo = await self._reader.read(upload)
                result = await self._batcher(Job(photo.pixels, options, attention))
        except ImageError as error:
            self.metrics.photos.labels(error.code).inc()
            return Record.failed(name, error, model, remedy=False)
        except TimeoutError:
            self.metrics.photos.labels("deadline").inc()
            message = f"no caption within {self.settings.deadline:g} seconds; try again"
            raise RequestError(503, "deadline", message, {"Retry-After": str(self._retry_after())}) from None
        self.metrics.photos.labels("ok").inc()
        return Record(name, "ok", result.captions, photo.width, photo.height, model, attention=result.attention)

    def _caption_batch(self, jobs: Sequence[Job]) -> list[Result]:
        """One batch of the encoder; jobs of equal search options are searched together."""
        with self.metrics.batch(len(jobs)):
            features = self.model.features(np.stack([job.pixels for job in jobs]))
            alike: dict[tuple[DecodeOptions, bool], list[int]] = {}
            for row, job in enumerate(jobs):
                alike.setdefault((job.options, job.attention), []).append(row)
            results: dict[int, Result] = {}
            for (options, attention), rows in alike.items():
                part = features if len(rows) == len(jobs) else features[rows]
                captions = self.model.search(part, options)
                maps: list[Any] = [None] * len(rows)
                if attention:
                    found = self.model.attention(part, [best for best, *_ in captions], options.style)
                    maps = [tuple(tuple(map(tuple, grid)) for grid in part.tolist()) for part in found]
                results.update(zip(rows, map(Result, captions, maps), strict=True))
            return [results[row] for row in range(len(jobs))]
