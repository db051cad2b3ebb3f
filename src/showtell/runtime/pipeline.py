"""Photos to results on several threads at once, in order, with a bound on what is in memory.

    source (the caller's thread) -> read (`workers` threads) -> encode (a batch) -> search (several batches) -> the caller

Encoding and search share `threads` threads, each of which works on a batch of its own. Threads that share one batch would wait
for each other at the end of every layer, and for whatever else the machine does; these never wait. The search takes more
photos at a time than the encoder, since its products are narrow and its steps have a fixed cost.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Source = TypeVar("Source")
Read = TypeVar("Read")
Encoded = TypeVar("Encoded")
Result = TypeVar("Result")


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
) -> Generator[Result, None, None]:
    """What `search` makes of all photos, in their order.

    The source is read in the caller's thread. What a stage raises is raised here, after the results before it. When the
    iterator is closed, fails or is interrupted, nothing new is begun, and what is running is waited for.
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

    try:
        while batch := list(itertools.islice(source, batch_size)):
            encoding.append(models.submit(encode_read, [readers.submit(read, photo) for photo in batch]))
            in_flight += 1
            # Tasks begin in order. With some more to encode before it, a search finds its batches encoded and need not wait.
            if len(encoding) >= sizes.searched + sizes.threads:
                begin_search(sizes.searched)
            while searching and (in_flight >= sizes.in_flight or searching[0][1].done()):
                count, results = searching.popleft()
                yield from results.result()
                in_flight -= count
        share = min(sizes.searched, math.ceil(len(encoding) / sizes.threads))  # all threads have something to do to the end
        while encoding:
            begin_search(min(share, len(encoding)))
        while searching:
            yield from searching.popleft()[1].result()
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
        models.shutdown(cancel_futures=True)
        readers.shutdown()
