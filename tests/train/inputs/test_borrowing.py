"""Captions borrowed from text without photos: which ones, how much they count, and that training reads them."""

import gzip
import json
from pathlib import Path

import pytest

from fakes import RecordingReporter
from showtell.data import read as read_dataset
from showtell.errors import DataError, RecipeError
from showtell.metrics import Cider, NGramTable
from showtell.train.inputs.batches import weighted
from showtell.train.inputs.borrowing import Borrowed, borrow, borrowed_captions, read_texts
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.train import train
from showtell.vocabulary import BEGIN, Vocabulary

THINGS = ("dog", "cat", "boat", "kite", "horse", "train")
CAPTIONS = {
    f"{thing}.jpg": [f"a {colour} {thing} near the wide river".split(), f"the {thing} is {colour} and very old".split()]
    for thing, colour in zip(THINGS, ("red", "blue") * 3, strict=True)
}
TEXTS = [
    "a red dog near the wide river bank",
    "a red dog near the wide river bank",
    "a blue cat is very old",
    "the dog is red and very old",  # the photo's own
    "some people eat their lunch outside",
]


def test_a_photo_borrows_the_most_alike_once_and_never_its_own() -> None:
    texts = [text.split() for text in TEXTS]
    found = borrow(CAPTIONS, texts, 3)
    assert " ".join(found["dog.jpg"][0].words) == TEXTS[0]
    for name, borrowed in found.items():
        words = [words for words, _ in borrowed]
        assert len(set(words)) == len(words) <= 3
        assert not set(words) & set(map(tuple, CAPTIONS[name]))
    assert tuple(TEXTS[4].split()) not in {words for many in found.values() for words, _ in many}
    assert max(len(many) for many in borrow(CAPTIONS, texts, 1).values()) == 1


def test_weights_are_squares_of_cider_and_half_where_a_photo_has_one_caption() -> None:
    text = TEXTS[2].split()
    table = NGramTable()
    [expected] = Cider(table.count(CAPTIONS.values()), table).rewards([1], [text])
    [(words, weight)] = borrow(CAPTIONS, [text], 2)["cat.jpg"]
    assert words == tuple(text)
    assert weight == pytest.approx(min(1.0, expected) ** 2)
    alone = {name: many[1:] for name, many in CAPTIONS.items()}
    table = NGramTable()
    [expected] = Cider(table.count(alone.values()), table).rewards([1], [text])
    [(_, weight)] = borrow(alone, [text], 2)["cat.jpg"]
    assert weight == pytest.approx(0.5 * min(1.0, expected / 2) ** 2)


def test_borrowed_captions_are_in_the_batch_with_their_weights_and_style() -> None:
    words = sorted({word for many in CAPTIONS.values() for caption in many for word in caption})
    without = Vocabulary(("<pad>", "<begin>", "<end>", "<unknown>", *words))
    vocabulary = without.with_styles(["plain"])
    captions = {name: [["<style:plain>", *words] for words in many] for name, many in CAPTIONS.items()}
    borrowed = {"dog.jpg": [Borrowed(("a", "red", "dog"), 0.25)]}
    written = weighted(captions, vocabulary, rule="ptb", max_words=30, borrowed=borrowed)
    assert written.lengths[0].tolist() == [8, 8, 4]
    assert written.lengths[1].tolist() == [8, 8, 0]
    assert vocabulary.decode(written.targets[0, 2].tolist()) == ("a", "red", "dog")
    assert set(written.inputs[..., 0][written.lengths > 0].tolist()) == {vocabulary.search_tokens("plain").begin}
    assert written.weights[0, 2] == pytest.approx(0.25 * written.weights[0, 0])
    assert written.weights[written.lengths > 0].mean() == pytest.approx(1)
    plain = weighted(CAPTIONS, without, rule="ptb", max_words=30, borrowed=borrowed)
    assert set(plain.inputs[..., 0].flatten().tolist()) == {BEGIN}


def test_text_files_are_read_whole_or_refused(tmp_path: Path) -> None:
    lines = [{"captions": ["A dog runs on the beach .", "Too short"]}, {"caption": "A cat sits on a mat."}]
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "plain.jsonl").write_text(text)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("plain.jsonl", "packed.jsonl.gz"):
        assert read_texts(tmp_path / name, str.split) == [
            ["A", "dog", "runs", "on", "the", "beach", "."],
            ["A", "cat", "sits", "on", "a", "mat."],
        ]
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-12])
    (tmp_path / "list.jsonl").write_text('["a dog"]')
    (tmp_path / "empty.jsonl").write_text("")
    wrong = {"cut.jsonl.gz": "cannot be read", "list.jsonl": "line 1: no captions", "empty.jsonl": "to borrow", "no": "No such"}
    for name, message in wrong.items():
        with pytest.raises(DataError, match=message):
            read_texts(tmp_path / name, str.split)


def test_a_run_learns_what_its_photos_borrow(shapes: Path, tmp_path: Path) -> None:
    colours, forms = ("red", "green", "blue", "yellow"), ("fence", "square", "cross")
    texts = [{"captions": [f"behold one {colour} {form} on grey"]} for colour in colours for form in forms]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    sets = [f"encoder.cache={tmp_path / 'cache'}", f'text.files=["{tmp_path / "texts.jsonl"}"]', "training.epochs=1"]
    recipe, log = Recipe.load("debug", [*sets, "text.captions=1", "training.max_photos=0"]), RecordingReporter()
    best = train(recipe, shapes, tmp_path / "run", resume=False, report=log)
    assert "48 captions borrowed for 48 photos" in log.messages
    again = RecordingReporter()
    texts = {"": tmp_path / "texts.jsonl"}
    kept = borrowed_captions(texts, read_dataset(shapes), "ptb", 1, tmp_path / "run" / "borrowed.jsonl", again)
    assert kept["red-cross-0.jpg"][0].words == ("behold", "one", "red", "cross", "on", "grey")
    assert not again.messages  # read from the run's folder, not searched for once more
    assert "behold" in checkpoint.find(best.path).load_model().vocabulary.ids


def test_a_text_file_for_each_style_is_asked_for() -> None:
    with pytest.raises(RecipeError, match="one for each style, here 2"):
        Recipe.load("debug", ['text.files=["a.jsonl"]', 'vocabulary.styles=["plain", "ode"]'])
