"""ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"), sentence level.

The F-measure of the longest common subsequence (LCS). As coco-caption, this differs from the paper: precision and recall are
each the best over the references, maybe of two different ones, and beta is 1.2, while the paper uses recall alone (infinite
beta).
"""

from collections.abc import Sequence

from showtell.metrics.result import MetricResult, Tokens

BETA = 1.2  # weight of recall over precision, coco-caption's choice


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, MetricResult]:
    """ROUGE-L of N candidates, each against its own references (at least one). The corpus score is the mean."""
    scores = [_score(candidate, refs) for candidate, refs in zip(candidates, references, strict=True)]
    return {"ROUGE-L": MetricResult.mean_of(scores)}


def _score(candidate: Tokens, references: Sequence[Tokens]) -> float:
    # coco-caption takes an empty caption for one empty word, so two empty captions are equal
    words = candidate or [""]
    common = [(lcs_length(words, reference or [""]), len(reference) or 1) for reference in references]
    precision = max(length for length, _ in common) / len(words)
    recall = max(length / total for length, total in common)
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def lcs_length(first: Tokens, second: Tokens) -> int:
    """Length of the longest common subsequence, with each row of the dynamic programme as the bits of an integer.

    Crochemore, Iliopoulos, Pinzon and Reid 2001, "A fast and practical bit-vector algorithm for the longest common
    subsequence problem": a zero bit marks a place in `first` where the row's value increases by one.
    """
    places: dict[str, int] = {}
    for index, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << index
    row = full = (1 << len(first)) - 1
    for token in second:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(first) - row.bit_count()
