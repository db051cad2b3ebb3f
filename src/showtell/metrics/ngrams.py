"""N-grams of many captions at once, as arrays: BLEU and CIDEr share the counting, which is what takes their time.

An n-gram gets a number when it is first seen: a word by itself, a longer one by the number of its beginning and of its last
word. All else is sorting and searching numbers.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from showtell.metrics.result import Tokens

ORDER = 4  # both metrics look at n-grams of 1 to 4 words
NGram = tuple[str, ...]
IntArray = npt.NDArray[np.int64]

_SHIFT = 32  # two numbers below 2**31 make one of 64 bits
_LOW = (1 << _SHIFT) - 1


@dataclass(frozen=True, slots=True)
class Counts:
    """The n-grams of one length in some captions: E entries of a caption, an n-gram in it and how often it is there.

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
        """Image and n-gram of each entry of n-grams of n + 1 words as one number (E,)."""
        entries = self.ngrams[n]
        return self.images[entries.captions] << _SHIFT | entries.ngrams


class NGramTable:
    """The numbers of n-grams. Counts can be compared where one table made them."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str | int, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__  # a new key gets the next number

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, ngram: NGram) -> int:
        """The number of one n-gram, a new one if need be."""
        found = self._numbers[ngram[0]]
        for word in ngram[1:]:
            found = self._numbers[found << _SHIFT | self._numbers[word]]
        return found

    def ngrams(self) -> Iterator[NGram]:
        """All n-grams in the order of their numbers."""
        known: list[NGram] = []
        for key in self._numbers:
            known.append((key,) if isinstance(key, str) else known[key >> _SHIFT] + known[key & _LOW])
            yield known[-1]

    def forget(self, size: int) -> None:
        """Drops all n-grams but the first `size`."""
        while len(self._numbers) > size:
            self._numbers.popitem()

    def count(self, groups: Iterable[Sequence[Tokens]]) -> Captions:
        """Counts tokenized captions, those of one image after the other."""
        numbers = self._numbers
        images: list[int] = []
        lengths: list[int] = []
        found: list[list[int]] = [[] for _ in range(ORDER)]
        for image, captions in enumerate(groups):
            for tokens in captions:
                words = ngrams = [numbers[token] for token in tokens]
                images.append(image)
                lengths.append(len(words))
                found[0] += ngrams
                for n in range(1, ORDER):
                    ngrams = [numbers[start << _SHIFT | word] for start, word in zip(ngrams, words[n:], strict=False)]
                    found[n] += ngrams
        sizes = np.array(lengths, dtype=np.int64)
        return Captions(np.array(images, dtype=np.int64), sizes, tuple(_entries(found[n], sizes - n) for n in range(ORDER)))


def documents(table: NGramTable, captions: Captions) -> IntArray:
    """In how many images' captions each n-gram of the table occurs (size of the table,)."""
    found = [np.unique(captions.keys(n)) & _LOW for n in range(ORDER)]
    return np.bincount(np.concatenate(found), minlength=len(table))


def positions(keys: IntArray, among: IntArray) -> tuple[IntArray, IntArray]:
    """Where keys occur in a sorted array: begin (K,) and end (K,) of each one's run."""
    return np.searchsorted(among, keys, "left"), np.searchsorted(among, keys, "right")


def _entries(ngrams: list[int], sizes: IntArray) -> Counts:
    captions = np.repeat(np.arange(len(sizes)), np.maximum(sizes, 0))
    keys, counts = np.unique(captions << _SHIFT | np.array(ngrams, dtype=np.int64), return_counts=True)
    return Counts(keys >> _SHIFT, keys & _LOW, counts)
