"""Photos to results on several threads at once, in order, with a bound on memory.

    source (the caller's thread) -> read (`workers` threads) -> encode (a batch) -> search (several batches) -> the caller

Encoding and search share `threads` threads, each of which works on a batch of its own. Threads that share one batch would wait
for each other at the end of every layer. The search takes more
photos at a time than the encoder, since its products are narrow and its steps have a fixed cost.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

Source = TypeVar("Source")
Read = TypeVar("Read")
Encoded = TypeVar("Encoded")
Result = TypeVar("Result")

_PAUSE = 0.01  # seconds; a source that takes less for a photo fills the batches
_LONG = 0.25  # seconds; photos at hand do not wait for a source that takes longer


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much goes at once. A batch has `batch` photos; a search takes `searched` batches."""

    batch: int
    searched: int
    threads: int
    workers: int

    @property
    def in_flight(self) -> int:
        """Batches between source and caller at most: one search running, one waiting, and something to encode meanwhile."""
        return 2 * self.searched + 2 * self.threads


def stream(
    photos: Iterable[Source],
    read: Callable[[Source], Read],
    encode: Callable[[Sequence[Read]], Encoded],
    search: Callable[[Sequence[Encoded]], Sequence[Result]],
    sizes: Sizes,
    stopped: Event | None = None,
) -> Generator[Result, None, None]:
    """The results of `search` for all photos, in their order.

    The source is read in the caller's thread. While the threads are idle, a photo that the source
    took some time for goes through the stages at once, with those before it. After a longer wait its result is given before
    the source is asked for the next.
    An error of a stage is raised here, after the results before it. When the iterator is closed, fails or is interrupted,
    no new work begins, `stopped` is set, and running work is waited for.
    """
    source = iter(photos)
    batch_size = sizes.batch
    if isinstance(photos, Sequence):  # a few photos are shared out too
        batch_size = max(1, min(batch_size, math.ceil(len(photos) / sizes.threads)))
    encoding: deque[Future[Encoded]] = deque()
    searching: deque[tuple[int, Future[Sequence[Result]]]] = deque()
    in_flight = 0
    readers = ThreadPoolExecutor(sizes.workers, "showtell-read")
    models = ThreadPoolExecutor(sizes.threads, "showtell-model")

    def encode_read(reading: Sequence[Future[Read]]) -> Encoded:
        return encode([photo.result() for photo in reading])

    def search_encoded(batches: Sequence[Future[Encoded]]) -> Sequence[Result]:
        return search([batch.result() for batch in batches])

    def begin_search(count: int) -> None:
        searching.append((count, models.submit(search_encoded, [encoding.popleft() for _ in range(count)])))

    def idle() -> bool:
        return all(batch.done() for batch in encoding) and all(found.done() for _, found in searching)

    try:
        batch: list[Future[Read]] = []
        while True:
            asked = time.monotonic()
            try:
                photo = next(source)
            except StopIteration:
                break
            waited = time.monotonic() - asked
            batch.append(readers.submit(read, photo))
            alone = waited >= _PAUSE and idle()
            if len(batch) == batch_size or alone:
                encoding.append(models.submit(encode_read, batch))
                batch = []
                in_flight += 1
            # Tasks begin in order. With some more to encode before it, a search finds its batches encoded and need not wait.
            while len(encoding) >= sizes.searched + sizes.threads or (alone and encoding):
                begin_search(min(sizes.searched, len(encoding)))
            while searching and (in_flight >= sizes.in_flight or searching[0][1].done() or (alone and waited >= _LONG)):
                count, results = searching.popleft()
                yield from results.result()
                in_flight -= count
        if batch:
            encoding.append(models.submit(encode_read, batch))
        share = min(sizes.searched, math.ceil(len(encoding) / sizes.threads))  # all threads have something to do to the end
        while encoding:
            begin_search(min(share, len(encoding)))
        while searching:
            yield from searching.popleft()[1].result()
    finally:
        if stopped:
            stopped.set()
        readers.shutdown(wait=False, cancel_futures=True)
        models.shutdown(cancel_futures=True)
        readers.shutdown()
