"""A micro-batcher: jobs of all requests that wait at the same time run together.

It never waits for a batch to fill: the next ones gather while all threads are busy, so batches grow with the load and a single
request is not delayed. Jobs that are cancelled while they wait, as by a deadline, never run.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Batcher(Generic[Job, Result]):
    """Calls `work` on batches of jobs in `threads` threads of its own; belongs to one event loop.

    At most `size` jobs run at once, and threads that are idle share those that wait. The caller limits the number of waiting
    jobs.
    """

    def __init__(self, work: Callable[[Sequence[Job]], Sequence[Result]], size: int, threads: int = 1) -> None:
        self._work = work
        self._idle = min(threads, size)
        self._size = size // self._idle  # of a batch
        self._waiting: deque[tuple[Job, asyncio.Future[Result]]] = deque()
        self._wake = asyncio.Event()
        self._threads = ThreadPoolExecutor(self._idle, "model")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts to run batches."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._idle)]

    async def __call__(self, job: Job) -> Result:
        """The result of a job. Cancelling the call removes the job from the queue."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Stops, and cancels waiting jobs."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for _, future in self._waiting:
            future.cancel()
        self._threads.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._next()
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._idle -= 1
            try:
                results = await loop.run_in_executor(self._threads, self._work, [job for job, _ in batch])
            except Exception as error:  # for the jobs' callers: the next batch may succeed
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            finally:
                self._idle += 1
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _next(self) -> list[tuple[Job, asyncio.Future[Result]]]:
        size = min(self._size, math.ceil(len(self._waiting) / self._idle))
        batch: list[tuple[Job, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < size:
            job, future = self._waiting.popleft()
            if not future.done():
                batch.append((job, future))
        return batch
