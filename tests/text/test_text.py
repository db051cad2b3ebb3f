"""Captions to words and back."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.errors import DataError
from showtell.text import as_sentence, detokenize, pieces, tokenize
from showtell.text.words import plurals, takes_an
from showtell.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man 's dog is n't wet .", ["a", "man", "'s", "dog", "is", "n't", "wet"]),
        ("The man’s dog isn't wet.", ["the", "man", "'s", "dog", "is", "n't", "wet"]),
        ('Two boys, "in" a T-shirt; snow-covered!', ["two", "boys", "in", "a", "t-shirt", "snow-covered"]),
        ("12 kids at 10:30 in the 2nd row", ["12", "kids", "at", "10:30", "in", "the", "2nd", "row"]),
        ("They can't & won't", ["they", "ca", "n't", "&", "wo", "n't"]),
        ("Ein Mädchen läuft", ["ein", "mädchen", "läuft"]),
        (" . ", []),
    ],
)
def test_tokenize(caption: str, words: list[str]) -> None:
    assert tokenize(caption) == words


HARD = (
    "a man's dog isn't wet",
    "they've said they'd come but they can't and won't",
    "he cannot see what is gonna happen and I wanna know",
    "we gotta go so gimme that and lemme see",
    "'tis a dog and 'twas a cat",
    "y'all look at the '60s car",
    "rock 'n' roll on the radio",
    "get 'em at 5 o'clock",
    "a boy in a #5 jersey (left) jumps",
    "[two] {men} (in red)",
    "a sign says 50% off for $5 or US$20",
    "fish & chips at AT&T in Mass. and the U.S.",
    "a B&W photo of the 1st St. Bernard",
    "1 1/2 cups :)",
    "a T-shirt in C++ or C# and/or a mother-in-law's hat",
    "il fait beau aujourd'hui et c'est l'eau",
    "s'il n'est pas là j'ai quelqu'un jusqu'ici",
    "ein Mädchen läuft",
)


@pytest.mark.parametrize("line", HARD)
def test_detokenize_is_the_inverse_of_tokenize_on_hard_lines(line: str) -> None:
    said = detokenize(tokenize(line))
    assert said.lower() == line.lower()
    for word in ("AT&T", "US$20", "Mass.", "B&W"):  # which are read otherwise in small letters
        assert (word in said) == (word in line)


WORDS = sorted({word for line in HARD for word in line.split()} - {"1", "1/2"})  # which are one token where they meet


@given(st.lists(st.sampled_from(WORDS)))
def test_hard_words_in_any_order_come_back(words: list[str]) -> None:
    tokens = tokenize(" ".join(words))
    assert tokenize(detokenize(tokens)) == tokens
    assert len(pieces(tokens)) == len(tokens)


def corpus(variable: str) -> list[str]:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set: it names the folder of the data set")
    if variable == "SHOWTELL_COCO":
        lines = (Path(folder) / "data.jsonl").read_text(encoding="utf-8").splitlines()
        return [caption for line in lines for caption in json.loads(line)["captions"]]
    path = next(Path(folder).rglob("Flickr8k.token.txt"))
    return [line.split("\t")[1] for line in path.read_text(encoding="utf-8").splitlines()]


def signs(text: str) -> str:
    """A text without spaces, capitals and the punctuation that the tokenizer drops."""
    return re.sub(r"[\s.,!?;:\"'`\u2018-\u201d-]", "", text.casefold())


@pytest.mark.parametrize(("variable", "least"), [("SHOWTELL_FLICKR8K", 40_000), ("SHOWTELL_COCO", 15_000)])
def test_detokenize_is_the_inverse_of_tokenize_on_every_caption(variable: str, least: int) -> None:
    captions = corpus(variable)
    said = {caption: detokenize(tokenize(caption)) for caption in captions}
    assert len(captions) >= least
    changed = [caption for caption in captions if tokenize(said[caption]) != tokenize(caption)]
    # One caption of COCO ends in ".,", which the Stanford tokenizer takes for an abbreviation.
    assert len(changed) <= 1e-4 * len(captions), changed[:5]
    lost = [caption for caption in captions if signs(said[caption]) != signs(caption)]
    assert len(lost) <= 1e-3 * len(captions), [(caption, said[caption]) for caption in lost[:20]]
    assert not [text for text in said.values() if re.search(r"-[lr][rcs]b-|# \d|\bcan not\b|\bgon na\b| n't\b", text)]


def test_sentences_end_as_sentences_do() -> None:
    assert detokenize([]) == ""
    assert as_sentence("a dog") == "A dog."
    assert as_sentence("") == ""
    assert as_sentence("a flag of the u.s.") == "A flag of the u.s."
    assert as_sentence("a dog runs over", cut=True) == "A dog runs over …"


def test_plurals_are_of_nouns_and_no_function_words() -> None:
    regular = {"dog": "dogs", "bus": "buses", "lady": "ladies", "wolf": "wolves", "knife": "knives", "fireman": "firemen"}
    irregular = {"woman": "women", "person": "people", "grandchild": "grandchildren", "mouse": "mice"}
    for singular, plural in (regular | irregular).items():
        assert plural in plurals(singular)
    assert "is" not in plurals("i")
    assert "its" not in plurals("it")


def test_an_comes_before_vowels_that_are_spoken() -> None:
    words = ["umbrella", "apple", "orange", "old", "unicycle", "uniform", "one", "european", "dog", "hat", "and", "a"]
    assert [word for word in words if takes_an(word)] == ["umbrella", "apple", "orange", "old"]


def test_vocabulary_counts_words_and_keeps_four_ids_apart(tmp_path) -> None:
    vocabulary = Vocabulary.from_captions([["a", "dog", "&"], ["a", "cat", "&"], ["a", "dog", "runs"]], min_count=2)
    assert vocabulary.words[4:] == ("a", "dog")
    assert len({PAD, BEGIN, END, UNKNOWN}) == 4
    ids = vocabulary.encode(["a", "cat", "dog"])
    assert ids == [4, UNKNOWN, 5]
    assert vocabulary.decode([BEGIN, *ids, END, PAD]) == ("a", "dog")
    vocabulary.save(tmp_path / "vocab.json")
    assert Vocabulary.load(tmp_path / "vocab.json") == vocabulary
    (tmp_path / "bad.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"bad\.json"):
        Vocabulary.load(tmp_path / "bad.json")
    with pytest.raises(DataError, match="min_count"):
        Vocabulary.from_captions([["a"]], min_count=2)
