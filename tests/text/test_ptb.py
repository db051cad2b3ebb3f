"""The tokenizer against stored answers of the Stanford tokenizer (benchmarks/ptb_golden.py writes them)."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.text import tokenize

HERE = Path(__file__).parent


def test_hard_lines_agree_with_stanford():
    pairs = [json.loads(line) for line in (HERE / "ptb_golden.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")]
    wrong = [(line, tokenize(line), tokens) for line, tokens in pairs if tokenize(line) != tokens]
    assert len(pairs) >= 2000
    assert len(wrong) <= 0.01 * len(pairs), wrong[:5]


@pytest.mark.real
@pytest.mark.skipif("SHOWTELL_FLICKR8K" not in os.environ, reason="$SHOWTELL_FLICKR8K, the folder of Flickr8k, is not set")
def test_flickr8k_agrees_with_stanford():
    path = next(Path(os.environ["SHOWTELL_FLICKR8K"]).rglob("Flickr8k.token.txt"))
    captions = [line.split("\t")[1] for line in path.read_text(encoding="utf-8").splitlines()]
    golden = (HERE / "ptb_flickr8k.bin").read_bytes()
    size = len(golden) // len(captions)
    wrong = [
        caption
        for index, caption in enumerate(captions)
        if hashlib.blake2b("\n".join(tokenize(caption)).encode(), digest_size=size).digest()
        != golden[index * size : (index + 1) * size]
    ]
    assert len(captions) == 40460
    assert len(wrong) <= 0.0001 * len(captions), wrong[:5]


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("", []),
        (" . , ! ", []),
        ("A man's dog isn't wet.", ["a", "man", "'s", "dog", "is", "n't", "wet"]),
        ("two\nlines", ["two", "lines"]),
        ("(left)", ["-lrb-", "left", "-rrb-"]),
        ("1 1/2 cups", ["1\u00a01/2", "cups"]),
        ("😀", []),
        ("vitamin C. The dog", ["vitamin", "c", "the", "dog"]),
        ("vitamin C. the dog", ["vitamin", "c.", "the", "dog"]),
    ],
)
def test_habits(caption, tokens):
    assert tokenize(caption) == tokens


@given(st.text())
def test_any_text_gives_lower_case_tokens_without_spaces(caption):
    for token in tokenize(caption):
        assert token
        assert token == token.lower()
        assert " " not in token
        assert "\n" not in token


@given(st.lists(st.from_regex("[a-z]{3,8}", fullmatch=True)))
def test_plain_words_are_their_own_tokens(words):
    split = {"cannot", "gonna", "wanna", "gotta", "gimme", "lemme"}
    kept = [word for word in words if word not in split]
    assert tokenize(" ".join(kept)) == kept
