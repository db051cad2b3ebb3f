"""CIDEr (Vedantam, Zitnick and Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation").

A candidate and a reference are compared as vectors of n-gram counts, each n-gram weighted by how few images it describes
(tf-idf). The paper has two variants, and both are here:

- `CIDEr` is what coco-caption prints under that name: the paper's CIDEr-D. Counts are clipped to the reference's, and a
  Gaussian penalty (sigma 6) punishes a length unlike the reference's, times 10. Two deviations from the paper: words are not
  stemmed (CIDEr-D does away with stems), and the lengths compared are numbers of bigrams, one less than numbers of words, so
  that captions of no and of one word count as equally long.
- `CIDEr-plain` is the paper's first form, the mean cosine similarity without clipping or penalty; times 10 like the authors'
  published code, and without the paper's stemming.

Document frequencies are those of the references at hand, or of a saved file, which makes scores of small sets comparable.
Where all references are alike, such as those of a single image, every n-gram weighs log 1 = 0, so both scores are 0;
`caveat` says so.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from showtell.errors import DataError
from showtell.files import write_json
from showtell.metrics.ngrams import ORDER, Captions, IntArray, NGram, NGramTable, documents, positions
from showtell.metrics.result import FloatArray, MetricResult, Tokens
from showtell.text import tokenize

SIGMA = 6.0  # words of difference in length at which the penalty is exp(-1/2)
SCALE = 10.0  # the paper's factor, which brings human captions to about 1 (and 100 in tables)
FEW = 50  # images below which an n-gram's weight says more of the choice of images than of the n-gram
_FORMAT = "showtell document frequencies 1"

Variant = Literal["CIDEr", "CIDEr-plain"]


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many images' references each n-gram occurs, of `documents` images."""

    counts: Mapping[NGram, int]
    documents: int

    @classmethod
    def of(cls, references: Sequence[Sequence[Tokens]]) -> Self:
        """The frequencies of N images' references, tokenized."""
        table = NGramTable()
        counts = documents(table, table.count(references))
        return cls(dict(zip(table.ngrams(), counts.tolist(), strict=True)), len(references))

    def save(self, path: Path) -> None:
        """Writes a JSON file: `format`, `documents`, and `counts` by n-gram, its words joined by spaces."""
        counts = {" ".join(ngram): count for ngram, count in sorted(self.counts.items())}
        write_json(path, {"format": _FORMAT, "documents": self.documents, "counts": counts})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote. Raises DataError where the file is of another kind or damaged."""
        try:
            value: Any = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; document frequencies are saved by DocumentFrequencies.save") from None
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error}); save the document frequencies again") from None
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise DataError(f"{path}: not a file of document frequencies; its `format` must be {_FORMAT!r}")
        counts, total = value.get("counts"), value.get("documents")
        if not isinstance(counts, dict) or not isinstance(total, int) or total < 1:
            raise DataError(
                f"{path}: `counts` or `documents` is missing or of the wrong kind; save the document frequencies again"
            )
        return cls({tuple(ngram.split(" ")): count for ngram, count in counts.items()}, total)


def caveat(references: Collection[Sequence[str]]) -> str | None:
    """What to know of CIDEr with the document frequencies of these images' reference captions, or None where all is well."""
    count = len(references)
    sets = (frozenset(" ".join(tokenize(text)) for text in texts) for texts in references)
    first = next(sets, None)
    if all(other == first for other in sets):
        which = "there is one image" if count == 1 else f"the references of all {count} images are alike"
        return f"CIDEr is 0 whatever the captions: it weighs words by how few images have them, and {which}"
    if count < FEW:
        return f"CIDEr of {count} images says little: it weighs words by how few images have them, which takes {FEW} or more"
    return None


class Cider:
    """CIDEr against fixed references: their vectors are made once, then any number of candidates are scored.

        table = NGramTable()
        cider = Cider(table.count(references), table)     # references: for each image a list of tokenized captions
        cider.rewards([0, 0, 3], sampled)                 # three tokenized captions, of images 0, 0 and 3

    `frequencies` defaults to those of the references.
    """

    def __init__(
        self,
        references: Captions,
        table: NGramTable,
        frequencies: DocumentFrequencies | None = None,
        variant: Variant = "CIDEr",
    ) -> None:
        self.variant = variant
        self._table = table
        if frequencies is None:
            total = int(references.images[-1]) + 1
            counts = documents(table, references)
        else:
            total = frequencies.documents
            numbers = [table.number(ngram) for ngram in frequencies.counts]
            counts = np.zeros(len(table), dtype=np.int64)
            counts[numbers] = list(frequencies.counts.values())
        # idf by number: the natural logarithm of all images by those that have the n-gram; none counts as one, like the last
        # entry, which serves all numbers beyond
        self._idf: FloatArray = np.log(total) - np.log(np.maximum(1, np.append(counts, 0)))
        self._references = references
        self._norms = self._norms_of(references)
        self._count = np.bincount(references.images)  # references of each image
        keys = [references.keys(n) for n in range(ORDER)]
        self._order = [np.argsort(part, kind="stable") for part in keys]
        self._keys = [part[order] for part, order in zip(keys, self._order, strict=True)]

    def score(self, candidates: Captions) -> dict[str, MetricResult]:
        """The scores of N candidates, one an image, counted by the same table. The corpus score is the mean."""
        return {self.variant: MetricResult.mean_of(self._scores(candidates))}

    def rewards(self, images: Sequence[int], captions: Sequence[Tokens]) -> FloatArray:
        """The scores (K,) of K tokenized captions of any images, as fractions: about 1 for a caption by a person."""
        known = len(self._table)
        counted = replace(self._table.count([captions]), images=np.asarray(images, dtype=np.int64))
        self._table.forget(known)  # sampled captions would fill it without end
        return self._scores(counted)

    def _scores(self, candidates: Captions) -> FloatArray:
        """Cosines between each candidate and its image's references, averaged over references and n-gram lengths."""
        clipped = self.variant == "CIDEr"
        norms = self._norms_of(candidates)
        total = np.zeros(len(candidates.lengths))
        for n in range(ORDER):
            ours, theirs = candidates.ngrams[n], self._references.ngrams[n]
            # every meeting (M,) of an n-gram of a candidate with the same n-gram of a reference of its image
            begin, end = positions(candidates.keys(n), self._keys[n])
            times = end - begin
            our = np.repeat(np.arange(len(times)), times)
            their = self._order[n][np.arange(len(our)) + np.repeat(begin - np.cumsum(times) + times, times)]
            candidate, reference = ours.captions[our], theirs.captions[their]
            count, other = ours.counts[our], theirs.counts[their]
            products = (np.minimum(count, other) if clipped else count) * other * self._weights(ours.ngrams[our]) ** 2
            scale = norms[n][candidate] * self._norms[n][reference]
            similarity = np.divide(products, scale, out=np.zeros_like(scale), where=scale > 0)
            if clipped:
                apart = _bigrams(candidates)[candidate] - _bigrams(self._references)[reference]
                similarity *= np.exp(-(apart**2) / (2 * SIGMA**2))
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
