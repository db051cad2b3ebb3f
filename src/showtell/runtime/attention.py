"""Attention maps: the decoder's attention weights for each word of a finished caption (Xu et al. 2015, section 5.4).

The search keeps no attention weights. The decoder reads each chosen caption once more and gives them: one short pass, cheaper
than weights kept for every hypothesis.
"""

from collections.abc import Sequence
from math import isqrt

import numpy as np

from showtell.arrays import Array
from showtell.decoding import StepModel
from showtell.errors import OptionError


def attention_maps(model: StepModel, features: Array, captions: Sequence[Sequence[int]], begin: int) -> list[Array]:
    """For each photo one map a word, float32 (words, side, side), rows from top to bottom; each map sums to 1.

    features (B, G, D) of side * side = G cells; `captions` has the token ids of one caption of each photo, begin and end left
    out. The map of a word holds the weights of the step that chose it. Raises OptionError where the decoder has no attention.
    """
    side = isqrt(features.shape[1])
    maps: list[list[Array]] = [[] for _ in captions]
    state = model.start(features)
    photos, hypothesis = np.arange(len(features)), np.zeros((len(features), 1), np.int64)
    last = np.full((len(features), 1), begin)
    for place in range(max((len(caption) for caption in captions), default=0)):
        step = model.step(last, state)
        if step.attention is None:
            raise OptionError("this model has no attention, and so no attention maps")
        for row, caption in enumerate(captions):
            if place < len(caption):
                maps[row].append(step.attention[row, 0].reshape(side, side))
                last[row, 0] = caption[place]  # a finished caption repeats its last word; no map is taken from there
        state = model.reorder(step.state, photos, hypothesis)
    return [np.stack(found) if found else np.zeros((0, side, side), np.float32) for found in maps]
