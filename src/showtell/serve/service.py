"""Captions uploads: reads them, gathers them into batches and gives their records. The HTTP routes are a thin layer over it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

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
from showtell.types import AttentionMap, ConfidenceOptions, DecodeOptions, Description, Record


class Model(Protocol):
    """The part of `runtime.Captioner` that the service calls."""

    bundle: Bundle

    def features(self, pixels: Array) -> Array:
        """uint8 (B, size, size, 3) to grid features float32 (B, cells, channels)."""
        ...

    def describe(self, features: Array, options: DecodeOptions, confidence: ConfidenceOptions) -> list[Description]:
        """What records say of each photo."""
        ...

    def attention_of(self, features: Array, found: Sequence[Description], style: str) -> list[tuple[AttentionMap, ...] | None]:
        """Attention maps of the best caption of each photo, searched for in that style; None where there is no caption."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a request wants its photos captioned, and whether with attention maps."""

    options: DecodeOptions
    confidence: ConfidenceOptions = field(default_factory=ConfidenceOptions)
    attention: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A photo to be captioned: pixels uint8 (size, size, 3), and what is wanted of it."""

    pixels: Array
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Result:
    """What was found out of a photo, and the attention maps of the best caption where the job wants them."""

    found: Description
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
        grey = Job(np.full((preprocessing.size, preprocessing.size, 3), 128, np.uint8), Wanted(self.model.bundle.search))
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

    async def submit(self, upload: Upload, wanted: Wanted, *, wait: bool) -> "asyncio.Task[Record]":
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
        task = asyncio.create_task(self._record(upload, wanted))
        task.add_done_callback(lambda task: self._leave(task, upload))
        return task

    def _leave(self, task: "asyncio.Task[Record]", upload: Upload) -> None:
        if not task.cancelled():
            task.exception()  # the client may have gone: without this, asyncio would log the error
        upload.release()  # a task that was cancelled before it began has not
        self.waiting -= 1
        self.places.release()

    async def _record(self, upload: Upload, wanted: Wanted) -> Record:
        name, model = upload.name, self.model.bundle.name
        try:
            async with asyncio.timeout(self.settings.deadline):
                photo = await self._reader.read(upload)
                result = await self._batcher(Job(photo.pixels, wanted))
        except ImageError as error:
            self.metrics.photos.labels(error.code).inc()
            return Record.failed(name, error, model, remedy=False)
        except TimeoutError:
            self.metrics.photos.labels("deadline").inc()
            message = f"no caption within {self.settings.deadline:g} seconds; try again"
            raise RequestError(503, "deadline", message, {"Retry-After": str(self._retry_after())}) from None
        record = Record.of(name, result.found, photo.width, photo.height, model, result.attention)
        self.metrics.photos.labels("doubtful" if record.doubtful else "ok").inc()
        return record

    def _caption_batch(self, jobs: Sequence[Job]) -> list[Result]:
        """One batch of the encoder; jobs that want the same are searched together."""
        with self.metrics.batch(len(jobs)):
            features = self.model.features(np.stack([job.pixels for job in jobs]))
            alike: dict[Wanted, list[int]] = {}
            for row, job in enumerate(jobs):
                alike.setdefault(job.wanted, []).append(row)
            results: dict[int, Result] = {}
            for wanted, rows in alike.items():
                part = features if len(rows) == len(jobs) else features[rows]
                found = self.model.describe(part, wanted.options, wanted.confidence)
                maps: list[tuple[AttentionMap, ...] | None] = [None] * len(rows)
                if wanted.attention:
                    maps = self.model.attention_of(part, found, wanted.options.style)
                results.update(zip(rows, map(Result, found, maps), strict=True))
            return [results[row] for row in range(len(jobs))]
