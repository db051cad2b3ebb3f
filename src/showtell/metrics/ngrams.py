"""N-gram counts of many captions as arrays, for BLEU and CIDEr, which spend most of their time on counting.

An n-gram gets a number at its first occurrence: a word by itself, a longer n-gram by the numbers of its beginning and of its
last word. Everything else sorts and searches numbers.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from showtell.arrays import IntArray
from showtell.metrics.result import Tokens

ORDER = 4  # both metrics use n-grams of 1 to 4 words

_SHIFT = 32  # two numbers below 2**31 make one of 64 bits
_LOW = (1 << _SHIFT) - 1


@dataclass(frozen=True, slots=True)
class Counts:
    """The n-grams of one length in some captions: E entries of a caption, an n-gram and its count there.

    Sorted by caption; every array is (E,).
    """

    captions: IntArray
    ngrams: IntArray
    counts: IntArray


@dataclass(frozen=True, slots=True)
class Captions:
    """C captions: the image of each (C,), its length in words (C,), and its n-grams by their length (ORDER)."""

    images: IntArray
    lengths: IntArray
    ngrams: tuple[Counts, ...]

    def keys(self, n: int) -> IntArray:
        """A number for the image and n-gram of each entry (E,), for n-grams of n + 1 words."""
        entries = self.ngrams[n]
        return self.images[entries.captions] << _SHIFT | entries.ngrams


class NGramTable:
    """Numbers n-grams. Only counts by the same table can be compared."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str | int, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__  # a new key gets the next number

    def __len__(self) -> int:
        return len(self._numbers)

    def forget(self, size: int) -> None:
        """Removes all n-grams but the first `size`."""
        while len(self._numbers) > size:
            self._numbers.popitem()

    def count(self, groups: Iterable[Sequence[Tokens]]) -> Captions:
        """Counts the n-grams of tokenized captions, grouped by image."""
        numbers = self._numbers
        images: list[int] = []
        lengths: list[int] = []
        by_length: list[list[int]] = [[] for _ in range(ORDER)]
        for image, captions in enumerate(groups):
            for tokens in captions:
                words = ngrams = [numbers[token] for token in tokens]
                images.append(image)
                lengths.append(len(words))
                by_length[0] += ngrams
                for n in range(1, ORDER):
                    ngrams = [numbers[start << _SHIFT | word] for start, word in zip(ngrams, words[n:], strict=False)]
                    by_length[n] += ngrams
        sizes = np.array(lengths, dtype=np.int64)
        return Captions(np.array(images, dtype=np.int64), sizes, tuple(_entries(by_length[n], sizes - n) for n in range(ORDER)))


def documents(table: NGramTable, captions: Captions) -> IntArray:
    """The number of images whose captions have each n-gram of the table (size of the table,)."""
    ngrams = [np.unique(captions.keys(n)) & _LOW for n in range(ORDER)]
    return np.bincount(np.concatenate(ngrams), minlength=len(table))


def positions(keys: IntArray, among: IntArray) -> tuple[IntArray, IntArray]:
    """The positions of K keys in a sorted array: begin (K,) and end (K,) of each key's run."""
    return np.searchsorted(among, keys, "left"), np.searchsorted(among, keys, "right")


def _entries(ngrams: list[int], sizes: IntArray) -> Counts:
    captions = np.repeat(np.arange(len(sizes)), np.maximum(sizes, 0))
    keys, counts = np.unique(captions << _SHIFT | np.array(ngrams, dtype=np.int64), return_counts=True)
    return Counts(keys >> _SHIFT, keys & _LOW, counts)
