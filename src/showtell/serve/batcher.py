"""A micro-batcher: what is asked at the same time is worked on in one batch.

It never waits for a batch to fill. While one batch is worked on the next gathers, so that batches grow with the load and a
single request is not held up. What was cancelled while it waited, as a deadline does, leaves without having cost anything.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


class Batcher(Generic[Ask, Answer]):
    """Calls `work` on batches of at most `size`, in one thread of its own; belongs to one event loop.

    How much may wait is for the caller to bound, who knows what else a request holds.
    """

    def __init__(self, work: Callable[[Sequence[Ask]], Sequence[Answer]], size: int) -> None:
        self._work = work
        self._size = size
        self._waiting: deque[tuple[Ask, asyncio.Future[Answer]]] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work."""
        self._task = asyncio.create_task(self._run())

    async def __call__(self, ask: Ask) -> Answer:
        """The answer to `ask`; whoever stops waiting for it takes it out of the queue."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, future))
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Stops; what waits is cancelled."""
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
                answers = await loop.run_in_executor(self._thread, self._work, [ask for ask, _ in batch])
            except Exception as error:  # theirs, who asked: the next batch may well succeed
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    def _next(self) -> list[tuple[Ask, asyncio.Future[Answer]]]:
        batch: list[tuple[Ask, asyncio.Future[Answer]]] = []
        while self._waiting and len(batch) < self._size:
            ask, future = self._waiting.popleft()
            if not future.done():
                batch.append((ask, future))
        return batch
