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
With the frequencies of a single image every n-gram weighs log 1 = 0, so both scores are 0.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from showtell.errors import DataError
from showtell.files import write_json
from showtell.metrics.ngrams import ORDER, NGram, count_ngrams
from showtell.metrics.result import MetricResult, Tokens

SIGMA = 6.0  # words of difference in length at which the penalty is exp(-1/2)
SCALE = 10.0  # the paper's factor, which brings human captions to about 1 (and 100 in tables)
_FORMAT = "showtell document frequencies 1"

Variant = Literal["CIDEr", "CIDEr-plain"]


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many images' references each n-gram occurs, of `documents` images."""

    counts: Mapping[NGram, int]
    documents: int

    @classmethod
    def of(cls, references: Iterable[Sequence[Tokens]]) -> Self:
        """The frequencies of N images' references, tokenized."""
        return cls.of_counts([[count_ngrams(tokens) for tokens in refs] for refs in references])

    @classmethod
    def of_counts(cls, references: Sequence[Sequence[Counter[NGram]]]) -> Self:
        """The frequencies of N images' references, as n-gram counts."""
        counts: Counter[NGram] = Counter()
        for refs in references:
            counts.update(set().union(*refs))
        return cls(counts, len(references))

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
        return cls({tuple(ngram.split(" ")): count for ngram, count in value["counts"].items()}, value["documents"])

    def weight(self, ngram: NGram) -> float:
        """The n-gram's idf, natural logarithm of images by images that have it; one never seen counts as seen once."""
        return math.log(self.documents / max(1, self.counts.get(ngram, 0)))


@dataclass(frozen=True, slots=True)
class _Vector:
    """A caption as tf-idf weights, their norms by n-gram length (ORDER numbers) and its length in bigrams."""

    weights: dict[NGram, float]
    norms: list[float]
    length: int


class Cider:
    """CIDEr against fixed references: their vectors are made once, then any number of candidates are scored.

    `references` are the tokenized references of N images; `frequencies` defaults to theirs. In training, `score_image` gives
    the reward of one sampled caption.
    """

    def __init__(
        self,
        references: Sequence[Sequence[Tokens]],
        frequencies: DocumentFrequencies | None = None,
        variant: Variant = "CIDEr",
    ) -> None:
        counts = [[count_ngrams(tokens) for tokens in refs] for refs in references]
        self.variant = variant
        self.frequencies = frequencies or DocumentFrequencies.of_counts(counts)
        self._idf: dict[NGram, float] = {}  # the weights asked for so far
        self._images = [[self._vector(ref) for ref in refs] for refs in counts]

    def score(self, candidates: Sequence[Tokens]) -> dict[str, MetricResult]:
        """The scores of N candidates, one for each image in order. The corpus score is the mean."""
        if len(candidates) != len(self._images):
            raise ValueError(
                f"{len(candidates)} candidates for the references of {len(self._images)} images; give one for each"
            )
        return {self.variant: MetricResult.mean_of([self.score_image(i, tokens) for i, tokens in enumerate(candidates)])}

    def score_image(self, index: int, candidate: Tokens) -> float:
        """The score of one tokenized candidate for image `index`, as a fraction: about 1 for a caption by a person."""
        references = self._images[index]
        vector = self._vector(count_ngrams(candidate))
        clipped = self.variant == "CIDEr"
        total = 0.0
        for reference in references:
            similarity = [0.0] * ORDER  # by n-gram length
            for ngram, weight in vector.weights.items():
                if other := reference.weights.get(ngram):
                    similarity[len(ngram) - 1] += (min(weight, other) if clipped else weight) * other
            penalty = math.exp(-((vector.length - reference.length) ** 2) / (2 * SIGMA**2)) if clipped else 1.0
            for value, norm, other_norm in zip(similarity, vector.norms, reference.norms, strict=True):
                if value:
                    total += penalty * value / (norm * other_norm)
        return SCALE * total / ORDER / len(references)

    def _vector(self, counts: Counter[NGram]) -> _Vector:
        weights: dict[NGram, float] = {}
        squares = [0.0] * ORDER
        length = 0
        idfs = self._idf
        for ngram, count in counts.items():
            n = len(ngram)
            if n == 2:
                length += count
            idf = idfs.get(ngram)
            if idf is None:
                idf = idfs[ngram] = self.frequencies.weight(ngram)
            if idf:  # an n-gram of every image adds nothing
                weights[ngram] = weight = count * idf
                squares[n - 1] += weight * weight
        return _Vector(weights, [math.sqrt(square) for square in squares], length)
