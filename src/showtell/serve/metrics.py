"""What Prometheus reads at /metrics."""

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one service, apart from any other in the process."""

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
        self.photos = Counter(
            "showtell_photos", "Photos by what became of them: ok or an error code.", ["outcome"], registry=registry
        )
        self.refused = Counter("showtell_refused", "Photos refused since every place was taken.", registry=registry)
        self.batches = Histogram("showtell_batch_photos", "Photos of a batch.", registry=registry, buckets=(1, 2, 4, 8, 16, 32))
        self.batch_seconds = Histogram("showtell_batch_seconds", "Model time of a batch.", registry=registry, buckets=_SECONDS)
        self._held = Gauge("showtell_held_bytes", "Bytes of uploads in memory.", registry=registry)
        self._waiting = Gauge("showtell_waiting_photos", "Photos accepted and not answered.", registry=registry)
        self.recent_batch_seconds = 0.0  # a moving average

    def watch(self, *, held: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Gauges that are read when they are asked for."""
        self._held.set_function(held)
        self._waiting.set_function(waiting)

    @contextlib.contextmanager
    def batch(self, photos: int) -> Iterator[None]:
        """Around the model's work on a batch."""
        began = time.perf_counter()
        yield
        taken = time.perf_counter() - began
        self.batches.observe(photos)
        self.batch_seconds.observe(taken)
        self.recent_batch_seconds += 0.2 * (taken - self.recent_batch_seconds)

    def page(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(_WithoutTimes(self.registry))


class _WithoutTimes(CollectorRegistry):
    """A registry less the `_created` series, which double what Prometheus stores and say nothing of what happens here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
