"""BLEU (Papineni, Roukos, Ward and Zhu 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation").

As coco-caption computes it, which differs from the paper in three ways. The effective reference length is the closest one,
the shorter of two equally close ones (as in NIST's later `mteval`; the paper leaves ties open). Precisions carry tiny
constants instead of being undefined where a candidate is shorter than n words. And it gives a score per image, which the
paper, a corpus metric, warns against: without a match of any 4-gram BLEU-4 is 0 for all practical purposes.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from showtell.metrics.ngrams import ORDER, count_ngrams
from showtell.metrics.result import FloatArray, MetricResult, Tokens

_SMALL, _TINY = 1e-9, 1e-15  # coco-caption's guards against dividing by zero


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, MetricResult]:
    """BLEU-1 to BLEU-4 of N candidates, each against its own references (one at least)."""
    counts = np.array([_count(*pair) for pair in zip(candidates, references, strict=True)], dtype=np.float64)
    per_image = _scores(counts)
    return {f"BLEU-{n}": MetricResult(per_image[:, n - 1], counts, partial(_score, n)) for n in range(1, ORDER + 1)}


def closest_length(length: int, references: Sequence[Tokens]) -> int:
    """The reference length nearest to `length`, the shorter of two equally near ones."""
    return min((abs(len(reference) - length), len(reference)) for reference in references)[1]


def _count(candidate: Tokens, references: Sequence[Tokens]) -> list[int]:
    """One image's counts: n-grams matched (ORDER numbers), n-grams proposed (ORDER), length, closest reference length."""
    matched = [0] * ORDER
    allowed = [count_ngrams(reference) for reference in references]
    for ngram, count in count_ngrams(candidate).items():
        most = max(counts[ngram] for counts in allowed)
        if most:
            matched[len(ngram) - 1] += min(count, most)
    proposed = [max(0, len(candidate) - n) for n in range(ORDER)]
    return [*matched, *proposed, len(candidate), closest_length(len(candidate), references)]


def _scores(counts: FloatArray) -> FloatArray:
    """BLEU-1 to BLEU-4 (..., ORDER) of counts (..., 2 * ORDER + 2): geometric mean of precisions times brevity penalty."""
    matched, proposed = counts[..., :ORDER], counts[..., ORDER : 2 * ORDER]
    ratio = (counts[..., -2:-1] + _TINY) / (counts[..., -1:] + _SMALL)
    means = np.cumprod((matched + _TINY) / (proposed + _SMALL), axis=-1) ** (1 / np.arange(1, ORDER + 1))
    return np.asarray(means * np.exp(np.minimum(0, 1 - 1 / ratio)))


def _score(n: int, counts: FloatArray) -> FloatArray:
    return np.asarray(_scores(counts)[..., n - 1])
