"""What word detectors add to the search, with the embedded model."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import showtell
from showtell.confidence import Detectors
from showtell.runtime.fusion import Fused
from showtell.types import ConfidenceOptions

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
CAT, KITCHEN = PHOTOS / "cat.jpg", PHOTOS / "kitchen.jpg"
PLAIN = ConfidenceOptions(evidence=False, fallback=False)


@pytest.fixture
def captioner() -> Iterator[showtell.Captioner]:
    captioner = showtell.load(threads=1)
    known = captioner.confidence
    yield captioner
    captioner.confidence = known


def seeing(captioner: showtell.Captioner, word: str, weight: float) -> None:
    """Gives the captioner a detector that finds `word` on all photos and another word on none."""
    known = captioner.confidence
    assert known is not None
    weights = np.zeros((len(known.labels.mean), 2), np.float32)
    captioner.confidence = replace(
        known,
        detectors=Detectors((word, "umbrella"), weights, np.array([30, -30], np.float32)),
        parameters=replace(known.parameters, word_weight=weight, word_neutral=0.1),
    )


def own_score(captioner: showtell.Captioner, photo: Path, tokens: tuple[str, ...], given: int = 0) -> float:
    """The mean log-probability that the decoder alone gives the words after the first `given`, and the end."""
    pixels = showtell.image.read_photo(photo, captioner.bundle.preprocessing).pixels
    special = captioner.bundle.search_tokens(captioner.options())
    state, found, last = captioner.decoder.start(captioner.features(pixels[None])), [], special.begin
    for token in (*captioner.bundle.vocabulary.encode(tokens), special.end):
        step = captioner.decoder.step(np.array([[last]]), state)
        found.append(float(step.log_probs[0, 0, token]))
        state, last = captioner.decoder.reorder(step.state, np.array([0]), np.array([[0]])), token
    return float(np.mean(found[given:]))


def test_a_word_that_is_detected_is_said_and_the_score_stays_the_decoders(captioner: showtell.Captioner) -> None:
    plain = captioner(KITCHEN)
    assert "clock" not in plain.tokens
    assert plain.score == pytest.approx(own_score(captioner, KITCHEN, plain.tokens), abs=1e-3)
    seeing(captioner, "clock", weight=6.0)
    [found] = next(captioner.records([KITCHEN], confidence=PLAIN)).captions
    assert "clock" in found.tokens
    assert found.score == pytest.approx(own_score(captioner, KITCHEN, found.tokens), abs=1e-3)
    assert found.score < plain.score
    # The words of a given beginning are not searched for, and have had no bonus.
    [begun] = next(captioner.records([KITCHEN], confidence=PLAIN, start_with="a clock")).captions
    assert begun.score == pytest.approx(own_score(captioner, KITCHEN, begun.tokens, given=2), abs=1e-3)


def test_photos_of_a_batch_have_their_own_words(captioner: showtell.Captioner) -> None:
    assert [caption.text for caption in captioner([CAT, KITCHEN])] == [captioner(CAT).text, captioner(KITCHEN).text]
    known = captioner.confidence
    captioner.confidence = None
    alone = captioner(KITCHEN).text
    captioner.confidence = replace(known, parameters=replace(known.parameters, word_weight=0.0))
    [without] = captioner.records([KITCHEN], confidence=PLAIN)
    assert without.caption == alone


def test_words_are_those_of_the_photo_where_only_some_photos_have_constraints(captioner: showtell.Captioner) -> None:
    read = showtell.image.read_photo
    pixels = [read(photo, captioner.bundle.preprocessing).pixels for photo in (CAT, KITCHEN, CAT, KITCHEN)]
    features = captioner.features(np.stack(pixels))
    words = captioner.bundle.constraints
    own = [words(), words(include=["window"]), words(include=["window"]), words()]
    together = [found[0].tokens for found in captioner.search(features, captioner.options(), own)]
    for row, constraints in enumerate(own):
        assert captioner.search(features[row : row + 1], captioner.options(), [constraints])[0][0].tokens == together[row]


def test_a_bonus_moves_with_its_photo(captioner: showtell.Captioner) -> None:
    features = np.random.default_rng(0).random((3, 64, len(captioner.confidence.labels.mean)), np.float32)
    bonus = np.repeat(np.array([[1], [2], [3]], np.float32), len(captioner.bundle.vocabulary), axis=1)
    fused, decoder = Fused(captioner.decoder, features, bonus), captioner.decoder
    begin = np.full((2, 1), captioner.bundle.search_tokens(captioner.options()).begin)
    state, alone = fused.start(np.array([0, 2])), decoder.start(features[[0, 2]])
    for places, added in (([0, 1], [1, 3]), ([1], [3])):  # the second photo moves up as the first leaves
        rows, column = np.array(places), np.zeros((len(places), 1), np.int64)
        state, alone = fused.reorder(state, rows, column), decoder.reorder(alone, rows, column)
        step, own = fused.step(begin[: len(rows)], state), decoder.step(begin[: len(rows)], alone)
        assert (step.log_probs - own.log_probs).mean((1, 2)) == pytest.approx(added, abs=1e-4)
        state, alone = step.state, own.state


def test_no_photos_have_no_captions(captioner: showtell.Captioner) -> None:
    none = np.zeros((0, 64, len(captioner.confidence.labels.mean)), np.float32)
    assert captioner.search(none, captioner.options()) == []
    assert captioner.describe(none, captioner.options(), PLAIN) == []


def test_samples_are_drawn_from_the_decoder_alone(captioner: showtell.Captioner) -> None:
    options = {"sample": True, "seed": 3, "num_captions": 4}
    first = [caption.text for caption in next(captioner.records([KITCHEN], confidence=PLAIN, **options)).captions]
    seeing(captioner, "clock", weight=4.0)
    assert [caption.text for caption in next(captioner.records([KITCHEN], confidence=PLAIN, **options)).captions] == first
