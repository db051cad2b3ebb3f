"""The result of a metric: a score for each image, and the sums that give the corpus score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from showtell.arrays import FloatArray

Tokens = Sequence[str]


@dataclass(frozen=True, slots=True)
class MetricResult:
    """The scores of one metric on N images, as fractions: `evaluate` and `Scores` multiply them by 100.

    Corpus scores are functions of sums over images (BLEU pools its counts): `totals` (N, K) holds each image's share of these
    sums, and `from_totals` turns sums (..., K) into scores (...). So bootstrap samples of images are weighted sums, and no
    caption is scored again.
    """

    images: FloatArray  # (N,)
    totals: FloatArray  # (N, K)
    from_totals: Callable[[FloatArray], FloatArray]

    @classmethod
    def mean_of(cls, images: npt.ArrayLike) -> "MetricResult":
        """The result of a metric whose corpus score is the mean over images."""
        scores = np.asarray(images, dtype=np.float64)
        return cls(scores, np.stack([scores, np.ones_like(scores)], axis=1), lambda sums: sums[..., 0] / sums[..., 1])

    @property
    def corpus(self) -> float:
        """The score of all images together."""
        return float(self.from_totals(self.totals.sum(axis=0)))

    def resampled(self, draws: FloatArray) -> FloatArray:
        """Corpus scores (B,) of B samples; `draws` (B, N) counts each image in each sample."""
        return self.from_totals(draws @ self.totals)
