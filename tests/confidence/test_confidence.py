"""Labels, signals, domain and descriptions, on models small enough to work out by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from showtell.confidence import Assessment, Confidence, Detectors, Labels, Parameters, describe
from showtell.confidence.model import FILE
from showtell.errors import BundleError, OptionError
from showtell.text.nouns import groups
from showtell.types import DOUBTFUL, SURE, Caption, ConfidenceOptions, DecodeOptions

NAMES = ("person", "dog", "skier", "broccoli")


def labels(size: int = 4) -> Labels:
    """Four labels over as many features: each label's logit is its own feature, times two, less one."""
    known = groups()
    return Labels(
        NAMES,
        tuple(known[name] for name in NAMES),
        ("a person", "a dog", "a skier", "broccoli"),
        np.zeros(size, np.float32),
        np.ones(size, np.float32),
        2 * np.eye(size, 4, dtype=np.float32),
        np.full(4, -1, np.float32),
    )


def detectors() -> Detectors:
    """Two words, whose logits are the first feature and three times the second."""
    return Detectors(("dog", "red"), np.array([[1, 0], [0, 3], [0, 0], [0, 0]], np.float32), np.zeros(2, np.float32))


def photo(likely: np.ndarray, strangeness: float = -1.0, in_domain: float = 0.8) -> Assessment:
    """A photo on which the words "dog" and "red" have the probabilities 0.5 and 0.2."""
    return Assessment(likely, np.log(np.array([0.5, 0.2], np.float32)), strangeness, in_domain)


def model(**changes: object) -> Confidence:
    """Strange is what lies outside the first two of the four features; confidence is the logistic of the score plus 1."""
    parameters = Parameters(
        weights=(1.0, 0.0, 0.0, 0.0, 0.0),
        bias={"coco": 1.0, "flickr8k": -3.0},
        strange=0.5,
        spread=0.1,
        evidence={"person": 0.5, "dog": 0.25},
    )
    return Confidence(labels(), detectors(), np.eye(4, 2, dtype=np.float32), replace(parameters, **changes))


def test_nouns_have_one_label_each() -> None:
    found = labels()
    assert found.named(["two", "skiers", "and", "a", "small", "dog", "near", "broccoli"]) == [0, 1, 3]  # a skier is a person
    assert found.named(["a", "hot", "dog", "with", "a", "cat"]) == []  # no dog, and cats have no label here
    assert found.named([]) == []


def test_label_probabilities_are_logistic_and_sorted() -> None:
    pooled = np.array([[0.5, 2.0, 0.0, -1.0]], np.float32)
    [probabilities] = labels().probabilities(pooled)
    assert probabilities == pytest.approx([0.5, 1 / (1 + math.exp(-3)), 1 / (1 + math.e), 1 / (1 + math.exp(3))], rel=1e-5)
    best = labels().best(probabilities, 2)
    assert [label.name for label in best] == ["dog", "person"]
    assert best[1].probability == pytest.approx(0.5)


def test_signals_are_those_of_the_nouns_and_words() -> None:
    seen = photo(np.array([0.5, 0.2, 0.9, 0.3], np.float32), -1.5)
    score, support, least, nouns, strangeness = model().signals(["a", "man", "and", "a", "red", "dog"], -0.7, seen)
    assert (score, nouns, strangeness) == (-0.7, 2, -1.5)
    assert support == pytest.approx((math.log(0.5) + math.log(0.2)) / 2, rel=1e-5)
    assert least == pytest.approx(math.log(0.2))
    _, support, least, nouns, _ = model().signals(["very", "nice"], -0.7, seen)
    assert (support, least, nouns) == (math.log(0.01), math.log(0.01), 0)


def test_likely_words_gain_and_others_lose() -> None:
    known = model(word_weight=0.5, word_neutral=0.5)
    grids = np.zeros((2, 3, 4), np.float32)
    grids[1, :, :2] = [2, -1]
    assessed = known.assess(grids)
    assert assessed[0].words == pytest.approx(np.log([0.5, 0.5]))
    dog, red = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(3))
    assert known.bonus(assessed)[0] == pytest.approx([0, 0], abs=1e-6)
    assert known.bonus(assessed)[1] == pytest.approx([math.log(dog / 0.5) / 2, math.log(red / 0.5) / 2], rel=1e-5)
    grids[0] = [-90, 90, 0, 0]
    assert known.bonus(known.assess(grids))[0] == pytest.approx([math.log(1e-3 / 0.5) / 2, math.log(2) / 2], rel=1e-5)


def test_a_photo_is_assessed_alike_in_every_batch() -> None:
    grids = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)
    together = model().assess(grids)
    for number, one in enumerate(together):
        [alone] = model().assess(grids[number : number + 1])
        assert np.array_equal(alone.probabilities, one.probabilities)
        assert np.array_equal(alone.words, one.words)
        assert (alone.strangeness, alone.in_domain) == (one.strangeness, one.in_domain)


def test_probability_has_a_bias_for_each_style() -> None:
    signals = [-1.0, 0, 0, 0, 0]
    assert model().probability(signals, "coco") == pytest.approx(0.5)
    assert model().probability(signals, "flickr8k") == pytest.approx(1 / (1 + math.exp(4)))
    assert model().probability(signals) == model().probability(signals, "coco")  # the default style is the first


def test_a_photo_outside_the_principal_components_is_strange() -> None:
    grids = np.zeros((3, 5, 4), np.float32)
    grids[0, :, 0], grids[1, :, 3] = 2, 2  # within, and outside
    grids[2, :, 0] = grids[2, :, 2] = 1  # half and half
    found = model().assess(grids)
    assert np.exp([one.strangeness for one in found]) == pytest.approx([1e-4, 1, 0.5], abs=1e-3)
    assert found[0].in_domain > 0.99
    assert found[1].in_domain < 0.01
    assert found[2].in_domain == pytest.approx(0.5, abs=1e-3)
    [blank] = model().assess(np.zeros((1, 5, 4), np.float32))
    assert np.isfinite(blank.in_domain)


def test_unsupported_words_are_all_that_name_what_lacks_evidence() -> None:
    likely = np.array([0.4, 0.9, 0.01, 0.01], np.float32)
    barred = model().unsupported(["a", "man", "with", "a", "dog"], likely)
    assert {"man", "person", "skiers"} <= set(barred)
    assert "dog" not in barred
    assert model().unsupported(["a", "dog", "on", "grass"], likely) == ()  # says no person
    assert model().unsupported(["a", "man", "with", "a", "dog"], likely, {"man"}) == ()  # was asked for
    assert model().unsupported(["broccoli"], likely) == ()  # is not checked
    skier = np.array([0.4, 0.9, 0.7, 0.01], np.float32)  # less likely a person than a skier, who is one
    assert model().unsupported(["a", "skier", "on", "snow"], skier) == ()
    barred = model().unsupported(["a", "man", "and", "a", "skier"], skier)
    assert "man" in barred
    assert "skier" not in barred


def test_a_model_comes_back_from_its_folder(tmp_path: Path) -> None:
    first = model()
    first.save(tmp_path)
    parameters = Parameters(**json.loads(json.dumps(first.to_json())))
    again = Confidence.load(tmp_path, parameters)
    assert (again.labels.names, again.labels.words, again.labels.phrases) == (NAMES, labels().words, labels().phrases)
    grids = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    assert again.detectors.words == ("dog", "red")
    for one, other in zip(first.assess(grids), again.assess(grids), strict=True):
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-3)
        assert other.words == pytest.approx(one.words, abs=1e-2)  # their weights are int8
        assert other.in_domain == pytest.approx(one.in_domain, abs=1e-3)


@pytest.mark.parametrize("damage", [b"", b"no zip", None])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes | None) -> None:
    if damage is None:
        np.savez(tmp_path / FILE, mean=np.zeros(3))
    else:
        (tmp_path / FILE).write_bytes(damage)
    with pytest.raises(BundleError, match="confidence"):
        Confidence.load(tmp_path, model().parameters)


def test_other_signals_than_this_version_knows_are_refused() -> None:
    with pytest.raises(BundleError, match="3 weights"):
        Parameters(weights=(1.0, 2.0, 3.0), bias={"": 0.0}, strange=0.5, spread=0.1)


SURE_DOG = np.array([0.1, 0.97, 0.1, 0.1], np.float32)
AND_SKIERS = np.array([0.6, 0.97, 0.1, 0.1], np.float32)  # a skier's label is "person"
NOTHING = np.array([0.1, 0.2, 0.1, 0.1], np.float32)
POOR = (Caption("a red bus", -4.0, ("a", "red", "bus")), Caption("a bus", -5.0, ("a", "bus")))
FAIR = (Caption("a dog", -0.5, ("a", "dog")),)


@pytest.mark.parametrize(
    ("captions", "likely", "options", "trust", "text", "source"),
    [
        (POOR, SURE_DOG, {}, {}, "a photo of a dog", "labels"),
        (POOR, SURE_DOG, {}, {"fallback": False}, "a red bus", "model"),
        (POOR, NOTHING, {}, {}, "a red bus", "model"),  # no label is sure
        ((Caption("red dogs", -4.0, ("red", "dogs")),), SURE_DOG, {}, {}, "red dogs", "model"),  # says it already
        (FAIR, SURE_DOG, {}, {}, "a dog", "model"),  # not doubtful
        (POOR, SURE_DOG, {"start_with": "a red"}, {}, "a red bus", "model"),  # certain words were asked for
        ((Caption("red skiers", -4.0, ("red", "skiers")),), AND_SKIERS, {}, {}, "red skiers", "model"),  # which is likely
        (POOR, SURE_DOG, {"avoid": ("dog",)}, {}, "a red bus", "model"),
        (POOR, NOTHING, {}, {"min_confidence": 0.5}, None, None),
        (POOR, SURE_DOG, {}, {"min_confidence": 0.5}, "a photo of a dog", "labels"),
    ],
)
def test_doubtful_captions(
    captions: tuple[Caption, ...], likely: np.ndarray, options: dict, trust: dict, text: str | None, source: str | None
) -> None:
    found = describe(model(), captions, photo(likely), DecodeOptions(**options), ConfidenceOptions(**trust))
    assert found.in_domain == 0.8
    if text is None:
        assert found.captions == ()
        assert found.confidence < 0.5
        return
    best = found.captions[0]
    assert (best.text, best.source) == (text, source)
    assert found.confidence == best.confidence
    assert len(found.captions) == len(captions)
    if source == "labels":
        assert best.confidence == pytest.approx(0.97)
        assert best.confidence >= SURE
        assert "".join(best.pieces) == best.text
        assert found.captions[1].text == "a red bus"
        assert found.captions[1].confidence < DOUBTFUL


def test_labels_mean_nothing_outside_the_domain() -> None:
    found = describe(model(), POOR, photo(SURE_DOG, -0.1, 0.4), DecodeOptions(), ConfidenceOptions())
    assert found.captions[0].text == "a red bus"


def test_labels_are_added_where_they_are_asked_for() -> None:
    found = describe(model(), FAIR, photo(SURE_DOG), DecodeOptions(), ConfidenceOptions(labels=True))
    assert found.labels
    assert found.labels[0].name == "dog"
    assert describe(model(), FAIR, photo(SURE_DOG), DecodeOptions(), ConfidenceOptions()).labels is None


def test_a_least_confidence_is_a_probability() -> None:
    with pytest.raises(OptionError, match="from 0 to 1"):
        ConfidenceOptions(min_confidence=1.5)
