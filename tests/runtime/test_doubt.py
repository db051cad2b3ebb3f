"""Evidence, fallback and doubt in the captioner that people use, with the embedded model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import showtell
from showtell.captioners.base import ForeignCaptioner
from showtell.errors import OptionError
from showtell.text.nouns import groups

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
CAT, KITCHEN = PHOTOS / "cat.jpg", PHOTOS / "kitchen.jpg"
CATS = groups()["cat"]


@pytest.fixture(scope="module")
def captioner() -> showtell.Captioner:
    return showtell.load(threads=1)


@contextmanager
def asking(captioner: showtell.Captioner, **parameters: Any) -> Iterator[None]:
    """A confidence model with other parameters."""
    before = captioner.confidence
    assert before is not None
    captioner.confidence = replace(before, parameters=replace(before.parameters, **parameters))
    try:
        yield
    finally:
        captioner.confidence = before


def test_a_caption_without_evidence_is_searched_for_again(captioner: showtell.Captioner) -> None:
    plain = captioner(CAT, num_captions=2)
    kitchen = captioner(KITCHEN)
    assert CATS & set(plain.tokens)
    no_cat = {"evidence": {"cat": 1.1}, "most_lost": 99.0, "bias": {"coco": 99.0}}  # and never doubtful
    with asking(captioner, **no_cat):
        first, second = captioner([CAT, KITCHEN], num_captions=2)
        assert not CATS & set(first.tokens)
        assert not CATS & set(first.alternatives[0].tokens)
        assert second.tokens == kitchen.tokens  # nothing is asked of it
        [kept] = captioner.records([CAT], confidence=showtell.ConfidenceOptions(evidence=False))
        assert kept.caption == plain.text
        # What the user asked for needs no evidence.
        assert "cat" in captioner(CAT, include=["cat"]).tokens
        assert captioner(CAT, start_with="a cat").text.startswith("a cat")
    with asking(captioner, **{**no_cat, "most_lost": -99.0}):  # no other caption is likely enough
        assert captioner(CAT).text == plain.text
    with asking(captioner, evidence=dict.fromkeys(captioner.confidence.labels.names, 1.1), most_lost=99.0):
        assert captioner(CAT).tokens  # a caption without any noun is one, too


def test_a_sure_label_takes_the_place_of_a_doubtful_caption(captioner: showtell.Captioner) -> None:
    with asking(captioner, evidence={"cat": 1.1}, most_lost=99.0, bias={"coco": -99.0, "flickr8k": -99.0}):
        [record] = captioner.records([CAT], attention=True)
        assert (record.caption, record.source, record.status) == ("a photo of a cat", "labels", "ok")
        assert record.confidence > 0.95
        assert not record.doubtful
        assert record.attention is not None
        assert len(record.attention) == 5
        [kept] = captioner.records([CAT], confidence=showtell.ConfidenceOptions(fallback=False))
        assert kept.source == "model"
        assert kept.doubtful
        [none] = captioner.records(
            [CAT], confidence=showtell.ConfidenceOptions(fallback=False, min_confidence=0.5), attention=True
        )
        assert (none.status, none.caption, none.attention, none.error_code) == ("doubtful", None, None, None)
        assert none.confidence < 0.01


def test_what_is_no_photo_is_out_of_domain(captioner: showtell.Captioner, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    records = list(captioner.records([CAT, KITCHEN, noise, Image.new("RGB", (300, 200), "navy")]))
    usual, unusual = records[:2], records[2:]
    assert min(record.in_domain for record in usual) > 0.5
    assert max(record.in_domain for record in unusual) < 0.5
    assert max(record.confidence for record in unusual) < 0.25
    assert all(record.doubtful for record in unusual)


def test_a_model_that_cannot_tell_refuses_what_it_cannot_do() -> None:
    class Other(ForeignCaptioner):
        supported = frozenset()

        def generate(self, images: Any, given: Any) -> Any:
            return [(showtell.Caption("a cat", 0.0, ()),) for _ in images]

    other = Other("other", None)
    [record] = other.records([CAT], confidence=showtell.ConfidenceOptions())
    assert (record.caption, record.confidence, record.in_domain) == ("a cat", None, None)
    for asked in (showtell.ConfidenceOptions(labels=True), showtell.ConfidenceOptions(min_confidence=0.1)):
        with pytest.raises(OptionError, match="other has none"):
            other.records([CAT], confidence=asked)
