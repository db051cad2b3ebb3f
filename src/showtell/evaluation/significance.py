"""Bootstrap confidence intervals of scores, and a paired significance test between two sets of candidates.

Intervals are percentile bootstrap intervals over images (Efron 1979; for BLEU, Koehn 2004, "Statistical Significance Tests for
Machine Translation Evaluation"). The test is approximate randomisation (Noreen 1989; Riezler and Maxwell 2005, "On Some
Pitfalls in Automatic Evaluation and Significance Testing for MT"). Under the null hypothesis an image's two captions can be
swapped, so the observed difference is compared with the differences after random swaps. The test assumes no distribution and
has fewer false positives than the bootstrap. CIDEr keeps the document frequencies of the whole set.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from showtell.arrays import FloatArray
from showtell.metrics import MetricResult

SAMPLES = 1000
CONFIDENCE = 0.95
_BLOCK = 1 << 24  # most numbers in one block of draws: 128 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """The 95% confidence interval of a score, times 100."""

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


def intervals(results: Mapping[str, MetricResult], *, samples: int = SAMPLES) -> dict[str, Interval]:
    """The interval of each metric's corpus score; all metrics use the same draws of images."""
    resampled: dict[str, list[FloatArray]] = {name: [] for name in results}
    for draws in _bootstrap(_images(results), samples):
        for name, result in results.items():
            resampled[name].append(result.resampled(draws))
    return {name: _interval(np.concatenate(scores)) for name, scores in resampled.items()}


def differences(
    first: Mapping[str, MetricResult], second: Mapping[str, MetricResult], *, samples: int = SAMPLES
) -> dict[str, Difference]:
    """Compares two sets of results on the same images in the same order, for each common metric."""
    names = [name for name in first if name in second]
    images = _images(first)
    drawn: dict[str, list[FloatArray]] = {name: [] for name in names}
    swapped: dict[str, list[FloatArray]] = {name: [] for name in names}
    for draws in _bootstrap(images, samples):
        for name in names:
            drawn[name].append(second[name].resampled(draws) - first[name].resampled(draws))
    for stay in _swaps(images, samples):
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
            # the observed assignment is one of the samples; rounding must not exclude it
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
    """The sizes of blocks of samples that fit in memory; their sum is `samples`."""
    size = max(1, _BLOCK // images)
    for start in range(0, samples, size):
        yield min(size, samples - start)


def _bootstrap(images: int, samples: int) -> Iterator[FloatArray]:
    """Blocks (B, N) of the counts of N images in B samples."""
    random = np.random.default_rng(0)
    for size in _blocks(images, samples):
        picks = random.integers(images, size=(size, images)) + images * np.arange(size)[:, None]
        yield np.bincount(picks.ravel(), minlength=size * images).reshape(size, images).astype(np.float64)


def _swaps(images: int, samples: int) -> Iterator[FloatArray]:
    """Blocks (B, N) of 0 where an image's two captions are swapped and 1 elsewhere."""
    random = np.random.default_rng(0)
    for size in _blocks(images, samples):
        yield random.integers(2, size=(size, images)).astype(np.float64)
