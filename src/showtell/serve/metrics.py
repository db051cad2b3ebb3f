"""The metrics that Prometheus reads at /metrics."""

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
disable_created_metrics()  # type: ignore[no-untyped-call]  # `_created` series double the storage, and nothing here reads them


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "showtell_requests", "Requests by route and status.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "showtell_request_seconds", "From request to the end of its answer.", ["route"], registry=registry, buckets=_SECONDS
        )
        self.photos = Counter("showtell_photos", "Photos: ok, doubtful or an error code.", ["outcome"], registry=registry)
        self.refused = Counter("showtell_refused", "Photos refused because no place was free.", registry=registry)
        self.batches = Histogram("showtell_batch_photos", "Photos of a batch.", registry=registry, buckets=(1, 2, 4, 8, 16, 32))
        self.batch_seconds = Histogram("showtell_batch_seconds", "Model time of a batch.", registry=registry, buckets=_SECONDS)
        self._held = Gauge("showtell_held_bytes", "Bytes of uploads in memory.", registry=registry)
        self._waiting = Gauge("showtell_waiting_photos", "Photos accepted and not yet answered.", registry=registry)
        self.recent_batch_seconds = 0.0  # a moving average

    def watch(self, *, held: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Sets the functions that give the gauges their values."""
        self._held.set_function(held)
        self._waiting.set_function(waiting)

    @contextlib.contextmanager
    def batch(self, photos: int) -> Iterator[None]:
        """Measures the model's work on a batch of photos."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.batches.observe(photos)
        self.batch_seconds.observe(seconds)
        self.recent_batch_seconds += 0.2 * (seconds - self.recent_batch_seconds)

    def page(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)
