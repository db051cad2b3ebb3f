"""CIDEr (Vedantam, Zitnick and Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation").

A candidate and a reference are compared as vectors of n-gram counts, weighted by tf-idf: an n-gram counts more the fewer images
have it. As coco-caption, this computes the paper's CIDEr-D: counts are clipped to the reference's, a Gaussian penalty (sigma 6)
acts on the difference in length, and the result is multiplied by 10. It deviates from the paper in two ways: words are not
stemmed (CIDEr-D does away with stems), and the lengths are numbers of bigrams, one less than numbers of words, so that captions
of no word and of one word are equally long.

Document frequencies are those of the references unless a larger corpus is given. Where all references are equal, such as those
of a single image, every n-gram weighs log 1 = 0 and the score is 0; `caveat` says so.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from showtell.arrays import FloatArray, IntArray
from showtell.metrics.ngrams import ORDER, Captions, NGramTable, documents, positions
from showtell.metrics.result import MetricResult, Tokens
from showtell.text import tokenize

SIGMA = 6.0  # words of difference in length at which the penalty is exp(-1/2)
SCALE = 10.0  # the paper's factor, which brings human captions to about 1 (and 100 in tables)
FEW = 50  # images below which the choice of images decides an n-gram's weight


def caveat(references: Collection[Sequence[str]]) -> str | None:
    """A warning where these images' references are too few or too similar for CIDEr, or None."""
    count = len(references)
    sets = (frozenset(" ".join(tokenize(text)) for text in texts) for texts in references)
    first = next(sets, None)
    if all(other == first for other in sets):
        which = "there is one image" if count == 1 else f"the references of all {count} images are equal"
        return f"CIDEr is 0 whatever the captions: it weighs words by the number of images that have them, and {which}"
    if count < FEW:
        return f"CIDEr of {count} images says little: its word weights need the references of {FEW} images or more"
    return None


class Cider:
    """CIDEr against fixed references: their vectors are computed once, for any number of candidates.

        table = NGramTable()
        cider = Cider(table.count(references), table)     # references: for each image a list of tokenized captions
        cider.rewards([0, 0, 3], sampled)                 # three tokenized captions, of images 0, 0 and 3

    Document frequencies are those of `corpus`, counted by the same table, and of the references by default.
    """

    def __init__(self, references: Captions, table: NGramTable, corpus: Captions | None = None) -> None:
        self._table = table
        corpus = references if corpus is None else corpus
        total = int(corpus.images[-1]) + 1
        counts = documents(table, corpus)
        # idf by n-gram number: log(images / images with the n-gram), with at least one image; the last entry is for all larger
        # numbers
        self._idf: FloatArray = np.log(total) - np.log(np.maximum(1, np.append(counts, 0)))
        self._references = references
        self._norms = self._norms_of(references)
        self._count = np.bincount(references.images)  # references of each image
        keys = [references.keys(n) for n in range(ORDER)]
        self._order = [np.argsort(part, kind="stable") for part in keys]
        self._keys = [part[order] for part, order in zip(keys, self._order, strict=True)]

    def score(self, candidates: Captions) -> dict[str, MetricResult]:
        """The scores of N candidates, one an image, counted by the same table. The corpus score is the mean."""
        return {"CIDEr": MetricResult.mean_of(self._scores(candidates))}

    def rewards(self, images: Sequence[int], captions: Sequence[Tokens]) -> FloatArray:
        """The scores (K,) of K tokenized captions of any images, as fractions: about 1 for a caption by a person."""
        size = len(self._table)
        counted = replace(self._table.count([captions]), images=np.asarray(images, dtype=np.int64))
        self._table.forget(size)  # the n-grams of sampled captions would fill memory
        return self._scores(counted)

    def _scores(self, candidates: Captions) -> FloatArray:
        """Cosines between each candidate and its image's references, averaged over references and n-gram lengths."""
        norms = self._norms_of(candidates)
        total = np.zeros(len(candidates.lengths))
        for n in range(ORDER):
            ours, theirs = candidates.ngrams[n], self._references.ngrams[n]
            # all pairs (M,) of a candidate's n-gram and the same n-gram in a reference of its image
            begin, end = positions(candidates.keys(n), self._keys[n])
            times = end - begin
            our = np.repeat(np.arange(len(times)), times)
            their = self._order[n][np.arange(len(our)) + np.repeat(begin - np.cumsum(times) + times, times)]
            candidate, reference = ours.captions[our], theirs.captions[their]
            count, other = ours.counts[our], theirs.counts[their]
            products = np.minimum(count, other) * other * self._weights(ours.ngrams[our]) ** 2
            scale = norms[n][candidate] * self._norms[n][reference]
            similarity = np.divide(products, scale, out=np.zeros_like(scale), where=scale > 0)
            difference = _bigrams(candidates)[candidate] - _bigrams(self._references)[reference]
            similarity *= np.exp(-(difference**2) / (2 * SIGMA**2))
            total += np.bincount(candidate, similarity, minlength=len(total))
        return SCALE * total / ORDER / self._count[candidates.images]

    def _norms_of(self, captions: Captions) -> list[FloatArray]:
        """Norms of the captions' tf-idf vectors (C,), by n-gram length."""
        size = len(captions.lengths)
        squares = [(part.counts * self._weights(part.ngrams)) ** 2 for part in captions.ngrams]
        sums = [np.bincount(part.captions, square, size) for part, square in zip(captions.ngrams, squares, strict=True)]
        return [np.sqrt(part) for part in sums]

    def _weights(self, ngrams: IntArray) -> FloatArray:
        """The idf of each n-gram."""
        return self._idf[np.minimum(ngrams, len(self._idf) - 1)]


def _bigrams(captions: Captions) -> IntArray:
    return np.maximum(0, captions.lengths - 1)
