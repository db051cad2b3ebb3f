"""BLEU (Papineni, Roukos, Ward and Zhu 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation").

As coco-caption, this differs from the paper in three ways. The effective reference length is the closest one, the shorter of
two equally close ones (as in NIST's later `mteval`; the paper leaves ties open). Tiny constants keep precisions defined where
a candidate is shorter than n words. And there is a score for each image, which the paper warns against: without a common
4-gram, BLEU-4 is practically 0.
"""

from functools import partial

import numpy as np

from showtell.arrays import FloatArray, IntArray
from showtell.metrics.ngrams import ORDER, Captions, positions
from showtell.metrics.result import MetricResult

_SMALL, _TINY = 1e-9, 1e-15  # coco-caption's guards against dividing by zero


def bleu(candidates: Captions, references: Captions) -> dict[str, MetricResult]:
    """BLEU-1 to BLEU-4 of N candidates, one for each image, against the references of these images (at least one each)."""
    matched = [_matched(candidates, references, n) for n in range(ORDER)]
    proposed = [np.maximum(0, candidates.lengths - n) for n in range(ORDER)]
    lengths = [candidates.lengths, closest_lengths(candidates, references)]
    counts = np.stack([*matched, *proposed, *lengths], axis=1).astype(np.float64)  # (N, 2 * ORDER + 2)
    per_image = _scores(counts)
    return {f"BLEU-{n}": MetricResult(per_image[:, n - 1], counts, partial(_score, n)) for n in range(1, ORDER + 1)}


def closest_lengths(candidates: Captions, references: Captions) -> IntArray:
    """The reference length nearest to each candidate's (N,), the shorter of two equally near ones."""
    lengths = references.lengths
    nearness = np.abs(lengths - candidates.lengths[references.images])
    best_first = np.lexsort((lengths, nearness, references.images))
    firsts = np.searchsorted(references.images, np.arange(len(candidates.lengths)))  # sorting keeps each image's place
    return lengths[best_first][firsts]


def _matched(candidates: Captions, references: Captions, n: int) -> FloatArray:
    """The clipped n-gram matches of each candidate (N,): an n-gram counts at most as often as in one of the references."""
    keys, which = np.unique(references.keys(n), return_inverse=True)
    most = np.zeros(len(keys), dtype=np.int64)
    np.maximum.at(most, which, references.ngrams[n].counts)
    begin, end = positions(candidates.keys(n), keys)
    match = begin < end
    ours = candidates.ngrams[n]
    counts = np.minimum(ours.counts[match], most[begin[match]])
    return np.bincount(ours.captions[match], counts, minlength=len(candidates.lengths)).astype(np.float64)


def _scores(counts: FloatArray) -> FloatArray:
    """BLEU-1 to BLEU-4 (..., ORDER) of counts (..., 2 * ORDER + 2): geometric mean of precisions times brevity penalty."""
    matched, proposed = counts[..., :ORDER], counts[..., ORDER : 2 * ORDER]
    ratio = (counts[..., -2:-1] + _TINY) / (counts[..., -1:] + _SMALL)
    means = np.cumprod((matched + _TINY) / (proposed + _SMALL), axis=-1) ** (1 / np.arange(1, ORDER + 1))
    return np.asarray(means * np.exp(np.minimum(0, 1 - 1 / ratio)))


def _score(n: int, counts: FloatArray) -> FloatArray:
    return np.asarray(_scores(counts)[..., n - 1])
