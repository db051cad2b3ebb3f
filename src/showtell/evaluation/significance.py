"""How far scores can be trusted: bootstrap intervals, and a paired test between two sets of candidates.

Intervals are percentile bootstrap intervals over images (Efron 1979; for BLEU, Koehn 2004, "Statistical Significance Tests
for Machine Translation Evaluation"). The test is approximate randomisation (Noreen 1989; Riezler and Maxwell 2005, "On Some
Pitfalls in Automatic Evaluation and Significance Testing for MT"): were two systems alike, an image's two captions could
change sides, so the observed difference is compared with those after random swaps. It assumes no distribution and is less
eager to see differences than the bootstrap. CIDEr's document frequencies stay those of the whole set throughout.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from showtell.metrics import MetricResult
from showtell.metrics.result import FloatArray

SAMPLES = 1000
CONFIDENCE = 0.95
_AT_ONCE = 1 << 24  # numbers in one block of draws: 128 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a score lies with 95% confidence, times 100."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The second score less the first, times 100, its 95% interval, and the p-value of the two-sided test."""

    first: float
    second: float
    difference: float
    interval: Interval
    p_value: float


def intervals(results: Mapping[str, MetricResult], *, samples: int = SAMPLES, seed: int = 0) -> dict[str, Interval]:
    """The interval of each metric's corpus score; the same images are drawn for all."""
    found: dict[str, list[FloatArray]] = {name: [] for name in results}
    for draws in _bootstrap(_images(results), samples, seed):
        for name, result in results.items():
            found[name].append(result.resampled(draws))
    return {name: _interval(np.concatenate(scores)) for name, scores in found.items()}


def differences(
    first: Mapping[str, MetricResult], second: Mapping[str, MetricResult], *, samples: int = SAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """Compares two sets of results on the same images in the same order, for each metric that both have."""
    names = [name for name in first if name in second]
    images = _images(first)
    drawn: dict[str, list[FloatArray]] = {name: [] for name in names}
    swapped: dict[str, list[FloatArray]] = {name: [] for name in names}
    for draws in _bootstrap(images, samples, seed):
        for name in names:
            drawn[name].append(second[name].resampled(draws) - first[name].resampled(draws))
    for stay in _swaps(images, samples, seed):
        for name in names:
            a, b = first[name], second[name]
            ours, theirs = stay @ a.totals + (1 - stay) @ b.totals, stay @ b.totals + (1 - stay) @ a.totals
            swapped[name].append(b.from_totals(theirs) - a.from_totals(ours))
    return {
        name: Difference(
            first=100 * first[name].corpus,
            second=100 * second[name].corpus,
            difference=100 * (observed := second[name].corpus - first[name].corpus),
            interval=_interval(np.concatenate(drawn[name])),
            # the observed arrangement counts as one of them; rounding must not make it less than itself
            p_value=float((1 + np.sum(np.abs(np.concatenate(swapped[name])) >= abs(observed) - 1e-12)) / (1 + samples)),
        )
        for name in names
    }


def _images(results: Mapping[str, MetricResult]) -> int:
    return len(next(iter(results.values())).images)


def _interval(scores: FloatArray) -> Interval:
    low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(100 * float(low), 100 * float(high))


def _blocks(images: int, samples: int) -> Iterator[int]:
    """Numbers of samples that fit the memory, adding up to `samples`."""
    size = max(1, _AT_ONCE // images)
    for start in range(0, samples, size):
        yield min(size, samples - start)


def _bootstrap(images: int, samples: int, seed: int) -> Iterator[FloatArray]:
    """Blocks (B, N) that say how often each of B samples of N images holds each image."""
    random = np.random.default_rng(seed)
    for size in _blocks(images, samples):
        picks = random.integers(images, size=(size, images)) + images * np.arange(size)[:, None]
        yield np.bincount(picks.ravel(), minlength=size * images).reshape(size, images).astype(np.float64)


def _swaps(images: int, samples: int, seed: int) -> Iterator[FloatArray]:
    """Blocks (B, N) of 1 where an image's two captions stay and 0 where they change sides."""
    random = np.random.default_rng(seed)
    for size in _blocks(images, samples):
        yield random.integers(2, size=(size, images)).astype(np.float64)
