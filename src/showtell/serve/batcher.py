"""A micro-batcher: jobs of all requests that wait at the same time run in one batch.

It never waits for a batch to fill: the next batch gathers while one runs, so batches grow with the load and a single request is
not delayed. Jobs that are cancelled while they wait, as by a deadline, never run.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Batcher(Generic[Job, Result]):
    """Calls `work` on batches of at most `size` jobs, in its own thread; belongs to one event loop.

    The caller limits the number of waiting jobs.
    """

    def __init__(self, work: Callable[[Sequence[Job]], Sequence[Result]], size: int) -> None:
        self._work = work
        self._size = size
        self._waiting: deque[tuple[Job, asyncio.Future[Result]]] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts to run batches."""
        self._task = asyncio.create_task(self._run())

    async def __call__(self, job: Job) -> Result:
        """The result of a job. Cancelling the call removes the job from the queue."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Stops, and cancels waiting jobs."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for _, future in self._waiting:
            future.cancel()
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._next()
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                results = await loop.run_in_executor(self._thread, self._work, [job for job, _ in batch])
            except Exception as error:  # for the jobs' callers: the next batch may succeed
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _next(self) -> list[tuple[Job, asyncio.Future[Result]]]:
        batch: list[tuple[Job, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._size:
            job, future = self._waiting.popleft()
            if not future.done():
                batch.append((job, future))
        return batch
