"""Attention maps of a finished caption, against the weights of the steps of its search."""

from dataclasses import dataclass

import numpy as np
import pytest

import showtell
from conftest import draw
from showtell.arrays import Array
from showtell.decoding import Step
from showtell.errors import OptionError
from showtell.image import to_pixels
from showtell.runtime.attention import attention_maps
from showtell.types import Caption, Record

BEGIN = 1


@dataclass
class Looking:
    """A model that looks at the cell whose number is that of the last token, in a grid of 7 by 7."""

    attends: bool = True

    def start(self, features: Array) -> int:
        return len(features)

    def step(self, tokens: Array, state: int) -> Step:
        attention = np.eye(49, dtype=np.float32)[tokens] if self.attends else None
        return Step(np.zeros((*tokens.shape, 60), np.float32), state, attention)

    def reorder(self, state: int, photos: Array, hypotheses: Array) -> int:
        return len(photos)


def test_a_words_map_holds_the_weights_of_the_step_that_chose_it() -> None:
    first, second, third = attention_maps(Looking(), np.zeros((3, 49, 8)), [[9, 20], [], [48, 7, 5]], BEGIN)
    assert [part.shape for part in (first, second, third)] == [(2, 7, 7), (0, 7, 7), (3, 7, 7)]
    assert [int(part.argmax()) for part in first] == [BEGIN, 9]  # cell 9 is the second row's third
    assert first[1][1, 2] == 1
    assert [int(part.argmax()) for part in third] == [BEGIN, 48, 7]


def test_a_model_that_does_not_attend_says_so() -> None:
    with pytest.raises(OptionError, match="has no attention"):
        attention_maps(Looking(attends=False), np.zeros((1, 49, 8)), [[4]], BEGIN)


def test_attention_of_the_embedded_model_is_that_of_its_greedy_search() -> None:
    captioner = showtell.load()
    preprocessing = captioner.bundle.preprocessing
    features = captioner.features(np.stack([to_pixels(draw(c, "cross"), preprocessing) for c in ("red", "green")]))
    options = captioner.options(beam_size=1, no_repeat_ngram=0)
    captions = [found[0] for found in captioner.search(features, options)]
    maps = captioner.attention(features, captions, options.style)

    for row, caption in enumerate(captions):
        assert maps[row].shape == (len(caption.tokens), 8, 8)
        assert maps[row].dtype == np.float32
        assert np.abs(maps[row].sum((1, 2)) - 1).max() < 1e-4
        # Word by word as greedy search goes, each photo alone: the same words, the same looks.
        begin = captioner.bundle.vocabulary.search_tokens().begin
        state, last = captioner.decoder.start(features[row : row + 1]), np.array([[begin]])
        for place, word in enumerate(captioner.bundle.vocabulary.encode(caption.tokens)):
            step = captioner.decoder.step(last, state)
            assert np.abs(step.attention[0, 0].reshape(8, 8) - maps[row][place]).max() < 1e-3
            last, state = np.array([[word]]), step.state


def test_a_record_carries_tokens_and_maps_where_they_were_asked_for() -> None:
    caption = Caption("a dog", -0.5, ("a", "dog"))
    flat = tuple((1 / 49,) * 7 for _ in range(7))
    result = Record("a.jpg", "ok", (caption,), 4, 3, "m", attention=(flat, flat)).to_json()
    assert result["tokens"] == ["a", "dog"]
    assert np.array(result["attention"]).shape == (2, 7, 7)
    assert "attention" not in Record("a.jpg", "ok", (caption,), 4, 3, "m").to_json()
    assert "tokens" not in Record("a.jpg", "ok", (caption,), 4, 3, "m").to_json()
