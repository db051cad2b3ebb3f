"""Labels: a multi-label classifier of nouns over the mean grid feature, one logistic regression a noun.

A noun's probability is that of at least one of a photo's reference captions naming it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from showtell.arrays import Array
from showtell.text.words import DOGS, PEOPLE
from showtell.types import Label

_OTHER = PEOPLE.other | DOGS.other  # pairs in which a word names something else, as in hot dog


@dataclass(frozen=True)
class Labels:
    """N labels: their plain names, the words of captions that name them, and how a caption of one alone calls it ("a dog").

    weights (D, N) and bias (N,) act on features less `mean` over `scale`, (D,) both.
    """

    names: tuple[str, ...]
    words: tuple[frozenset[str], ...]
    phrases: tuple[str, ...]
    mean: Array
    scale: Array
    weights: Array
    bias: Array

    def standardised(self, pooled: Array) -> Array:
        """Mean grid features (B, D) less `mean`, over `scale`."""
        found: Array = (pooled - self.mean) / self.scale
        return found

    def probabilities(self, pooled: Array) -> Array:
        """(B, N) of mean grid features (B, D)."""
        logits = product(self.standardised(pooled), self.weights) + self.bias
        found: Array = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return found

    def best(self, probabilities: Array, count: int = 5) -> tuple[Label, ...]:
        """The likeliest labels of one photo (N,), likeliest first."""
        return tuple(Label(self.names[place], float(probabilities[place])) for place in np.argsort(-probabilities)[:count])

    @cached_property
    def of_word(self) -> Mapping[str, int]:
        """The label of each word that has one; of two labels the first, so that a skier is a person."""
        return {word: place for place in reversed(range(len(self.names))) for word in self.words[place]}

    def named(self, tokens: Sequence[str]) -> list[int]:
        """The labels that a caption's nouns name, one for each noun."""
        other = [pair in _OTHER for pair in pairwise(["", *tokens, ""])]
        of = self.of_word
        return [of[word] for place, word in enumerate(tokens) if word in of and not other[place] and not other[place + 1]]


def product(rows: Array, matrix: Array) -> Array:
    """The float32 product (B, N) of (B, D) and (D, N), in which a row does not depend on the others.

    The threads of numpy's own product spin for a while after it, and would take the processors from the networks.
    """
    found: Array = np.einsum("bd,dn->bn", rows.astype(np.float32, copy=False), matrix.astype(np.float32, copy=False))
    return found
