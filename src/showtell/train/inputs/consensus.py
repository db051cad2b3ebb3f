"""Consensus weights: the loss weight of a caption grows with its agreement with the photo's other captions.

Of five people who describe a photo, one may name things that no other names. The cross-entropy of each caption is weighted by
its CIDEr-D against the others (WXE in Phan, Henter, Miyao and Satoh 2017, "Consensus-based Sequence Training for Video
Captioning"). CIDEr measures consensus too, so the weighted loss is closer to the metric. It costs nothing in training.
"""

from collections.abc import Sequence

import numpy as np

from showtell.arrays import FloatArray
from showtell.metrics import Cider, NGramTable
from showtell.metrics.result import Tokens


def consensus_weights(captions: Sequence[Sequence[Tokens]], power: float) -> list[FloatArray]:
    """For each photo the loss weights (K,) of its K tokenised captions; their mean is 1.

    A weight is proportional to the caption's CIDEr-D against the photo's other captions, to the power of `power`, with document
    frequencies of all `captions`. Weights are 1 where `power` is 0, a photo has one caption or its captions share no n-gram.
    """
    weights = [np.ones(len(many)) for many in captions]
    if power == 0:
        return weights
    table = NGramTable()
    corpus = table.count(captions)
    for k in range(max(map(len, captions))):
        others = table.count([*many[:k], *many[k + 1 :]] for many in captions)
        rows = [row for row, many in enumerate(captions) if len(many) > max(1, k)]
        scores = Cider(others, table, corpus).rewards(rows, [captions[row][k] for row in rows])
        for row, score in zip(rows, scores, strict=True):
            weights[row][k] = score**power
    return [many / many.mean() if many.any() else np.ones_like(many) for many in weights]
