"""Captions to words and back."""

import pytest

from showtell.errors import DataError
from showtell.text import as_sentence, detokenize, tokenize
from showtell.vocab import BEGIN, END, PAD, UNKNOWN, Vocabulary


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


def test_detokenize_puts_contractions_back() -> None:
    assert detokenize(["a", "man", "'s", "dog", "is", "n't", "wet"]) == "a man's dog isn't wet"
    assert detokenize([]) == ""
    assert as_sentence("a dog") == "A dog."
    assert as_sentence("") == ""


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
