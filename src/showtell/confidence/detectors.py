"""Word detectors: the probability of each word in the captions of a photo, by a logistic regression over the mean grid feature.

The search adds what they say to the decoder's predictions. Detectors of words are those of Fang et al. 2015, "From Captions to
Visual Concepts and Back"; the sum of two models' logarithms in a search is shallow fusion (Gulcehre et al. 2015, "On Using
Monolingual Corpora in Neural Machine Translation").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from showtell.arrays import Array
from showtell.confidence.labels import product

_FLOOR = 1e-3  # of probabilities whose logarithm is taken


@dataclass(frozen=True)
class Detectors:
    """Of W words. weights float32 (D, W) and bias (W,) act on standardised features, as those of `Labels`."""

    words: tuple[str, ...]
    weights: Array
    bias: Array

    def log_probabilities(self, standard: Array) -> Array:
        """Of each word in the captions of a photo, float32 (B, W), from standardised features (B, D)."""
        logits = product(standard, self.weights) + self.bias
        found: Array = np.log(np.maximum(1 / (1 + np.exp(-np.clip(logits, -30, 30))), _FLOOR)).astype(np.float32)
        return found

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Where each word stands."""
        return {word: place for place, word in enumerate(self.words)}
