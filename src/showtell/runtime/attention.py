"""Where the model looked for each word of a finished caption (Xu et al. 2015, section 5.4).

The search forgets attention weights as it goes; reading a caption once more gives them back. That is one short pass for the
captions that were chosen, instead of weights carried along for every hypothesis that was not.
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
    out. The map of a word is where the model looked when it chose it. Raises OptionError where the model does not attend.
    """
    maps: list[list[Array]] = [[] for _ in captions]
    state = model.start(features)
    photos, hypothesis = np.arange(len(features)), np.zeros((len(features), 1), np.int64)
    last = np.full((len(features), 1), begin)
    for place in range(max((len(caption) for caption in captions), default=0)):
        step = model.step(last, state)
        if step.attention is None:
            raise OptionError("this model does not attend to parts of a photo: there is no attention to show")
        side = isqrt(step.attention.shape[-1])
        for row, caption in enumerate(captions):
            if place < len(caption):
                maps[row].append(step.attention[row, 0].reshape(side, side))
                last[row, 0] = caption[place]  # a caption that has ended reads its last word again; nobody looks at that
        state = model.reorder(step.state, photos, hypothesis)
    return [np.stack(found) if found else np.zeros((0, 7, 7), np.float32) for found in maps]
