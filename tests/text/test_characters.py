"""Captions in scripts without spaces: cut into characters, put together again, scored, and warned of where they are not."""

import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.errors import OptionError, ShowtellWarning
from showtell.metrics import score
from showtell.text import RULES, TOKENIZERS, detokenize, tokenize
from showtell.vocabulary import Vocabulary

CHINESE = ["一只狗在草地上奔跑。", "两个人坐在长椅上。"]
CASES = [
    ("一只狗在草地上奔跑。", list("一只狗在草地上奔跑")),
    ("一只 dog 在跑,两只cat!", ["一", "只", "dog", "在", "跑", "两", "只", "cat"]),
    ("犬が、走っている", list("犬が走っている")),
    ("コーヒーを2杯", ["コ", "ー", "ヒ", "ー", "を", "2", "杯"]),
    ("か\u3099", ["が"]),  # composed
    ("หมาวิ่ง", ["ห", "ม", "า", "วิ่", "ง"]),  # marks stay with what they are written on
    ("A man's dog", ["a", "man", "'s", "dog"]),
    ("개가 달린다", ["개가", "달린다"]),  # Korean has spaces
    ("", []),
    ("。!?", []),
]


@pytest.mark.parametrize(("caption", "tokens"), CASES)
def test_characters_are_tokens_where_a_script_has_no_spaces(caption: str, tokens: list[str]) -> None:
    assert TOKENIZERS["characters"](caption) == tokens


@given(st.lists(st.sampled_from([*"一只狗犬がコーヒหมา", "วิ่", "dog", "cat", "2", "'s"])))
def test_characters_come_back_without_spaces_between_them(words: list[str]) -> None:
    rule = RULES["characters"]
    text = detokenize(rule.tokenize(" ".join(words)), spaced=rule.spaced)
    assert rule.tokenize(text) == rule.tokenize(" ".join(words))


def test_captions_of_characters_read_as_people_write_them() -> None:
    assert detokenize(list("一只狗"), spaced=False) == "一只狗"
    assert detokenize(["一", "只", "big", "dog", "'s", "在"], spaced=False) == "一只big dog's在"
    assert detokenize(["一", "只", "狗"]) == "一 只 狗"  # captions that were cut into words before are scored as they are


def test_chinese_captions_are_scored_by_characters_and_warned_of_otherwise() -> None:
    candidates = {"1.jpg": "一只狗在草地上", "2.jpg": "两个人坐在长椅上"}
    references = {image: [caption] for image, caption in zip(candidates, CHINESE, strict=True)}
    with pytest.warns(ShowtellWarning, match=r"2 of 2 captions have no spaces .* the tokenizer `characters`"):
        words = score(candidates, references)
    assert words.corpus["BLEU-1"] < 51  # one of two sentences is the very same
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        characters = score(candidates, references, tokenizer="characters")
        score({"a": "一 只 狗"}, {"a": ["一 只 狗 在 草地 上 奔跑"]})  # words, put apart by somebody else
        score({"a": "a dog"}, {"a": ["a dog"]})
    assert characters.tokenizer == "characters"
    assert characters.corpus["BLEU-1"] == pytest.approx(100 * 2.718281828 ** (1 - 17 / 15), abs=1e-4)
    with pytest.raises(OptionError, match="tokenizer 'jieba' is not known; choose among ptb, characters"):
        score(candidates, references, tokenizer="jieba")


def test_a_vocabulary_of_sentences_is_warned_of() -> None:
    with pytest.warns(ShowtellWarning, match=r'2 of 2 captions .* train with vocabulary.text = "characters"'):
        Vocabulary.from_captions([tokenize(caption) for caption in CHINESE], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = Vocabulary.from_captions([RULES["characters"].tokenize(caption) for caption in CHINESE], 1)
    assert {"狗", "人", "在"} < words.ids.keys()


def test_evaluate_takes_the_tokenizer(tmp_path: Path) -> None:
    from showtell.evaluation import compare_files, evaluate_files

    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"path": "1.jpg", "caption": "一只狗在草地上"}\n', encoding="utf-8")
    (tmp_path / "refs.jsonl").write_text('{"image": "1.jpg", "captions": ["一只狗在草地上奔跑。"]}\n', encoding="utf-8")
    files = (tmp_path / "a.jsonl", tmp_path / "refs.jsonl")
    assert evaluate_files(*files, ["bleu"], tokenizer="characters").scores.corpus["BLEU-1"] > 70
    both = compare_files(tmp_path / "b.jsonl", *files, ["bleu"], tokenizer="characters")
    assert both.second.scores.tokenizer == "characters"
