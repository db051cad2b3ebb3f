"""Counting n-grams, for BLEU and CIDEr."""

from collections import Counter
from itertools import chain

from showtell.metrics.result import Tokens

ORDER = 4  # both metrics look at n-grams of 1 to 4 words
NGram = tuple[str, ...]


def count_ngrams(tokens: Tokens) -> Counter[NGram]:
    """How often each n-gram of 1 to ORDER words occurs."""
    return Counter(chain.from_iterable(zip(*(tokens[start:] for start in range(n)), strict=False) for n in range(1, ORDER + 1)))
