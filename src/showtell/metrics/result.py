"""What every metric returns: a score for each image, and the sums that a corpus score is made from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = Sequence[str]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric on N images, as a fraction: `evaluate` and `Scores` show it times 100.

    Corpus scores are functions of sums over images (BLEU pools its counts), so `totals` (N, K) holds each image's share of
    these sums and `from_totals` turns sums (..., K) into scores (...). Bootstrap samples of the images are then weighted
    sums, and cost no second look at any caption.
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
        """Corpus scores (B,) of B samples; `draws` (B, N) says how many times each sample holds each image."""
        return self.from_totals(draws @ self.totals)
