"""Captions uploads: reads them, gathers them into batches and gives their records. The HTTP routes are a thin layer over it."""

import asyncio
from collections.abc import Sequence

from showtell.errors import CaptionError, ImageError, ServerError
from showtell.serve.batcher import Batcher
from showtell.serve.budget import ByteBudget
from showtell.serve.errors import RequestError, overloaded
from showtell.serve.logs import LOG
from showtell.serve.metrics import Metrics
from showtell.serve.models import Job, Model, Result, Wanted
from showtell.serve.reading import Reader
from showtell.serve.settings import ServiceSettings
from showtell.serve.upload import Upload
from showtell.types import Record


class Service:
    """Captions uploads, many requests in one batch; belongs to one event loop once started."""

    def __init__(self, model: Model, settings: ServiceSettings) -> None:
        self.model = model
        self.settings = settings
        self.metrics = Metrics()
        self.ready = False
        self.waiting = 0  # photos accepted whose records are not ready

    async def start(self) -> None:
        """Captions grey pictures, so that the model takes its memory now and faults show at once."""
        settings = self.settings
        self.budget = ByteBudget(settings.max_held_bytes)
        self.places = asyncio.Semaphore(settings.places)
        self._reader = Reader(self.model.read, settings)
        self._batcher = Batcher(self._caption_batch, settings.batch_size, self.model.parallel)
        self._batcher.start()
        self.metrics.watch(held=lambda: self.budget.held, waiting=lambda: self.waiting)
        await asyncio.gather(*map(self._batcher, self.model.trials(settings.batch_size)))
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
        name, model = upload.name, self.model.name
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
        except ServerError as error:  # which names the server and its key; that is for the log alone
            self.metrics.photos.labels("upstream").inc()
            LOG.warning(str(error))
            raise RequestError(502, "upstream", "the server behind this captioner cannot be used; try again later") from None
        if isinstance(result, CaptionError):
            self.metrics.photos.labels("no-caption").inc()
            return Record(
                name, "error", (), photo.width, photo.height, model, error_code="no-caption", error_message=str(result)
            )
        record = Record.of(name, result.found, photo.width, photo.height, model, result.attention)
        self.metrics.photos.labels("doubtful" if record.doubtful else "ok").inc()
        return record

    def _caption_batch(self, jobs: Sequence[Job]) -> list[Result | CaptionError]:
        with self.metrics.batch(len(jobs)):
            return self.model.caption(jobs)
