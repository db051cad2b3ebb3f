"""Scores worked out by hand, the public function and its errors."""

import json
import math

import numpy as np
import pytest

from showtell.errors import DataError, MissingExtraError, MissingToolError, OptionError
from showtell.metrics import Cider, NGramTable, cider_caveat, coco, score
from showtell.metrics.bleu import bleu
from showtell.metrics.rouge import lcs_length, rouge_l

CANDIDATES = {"dog.jpg": "a dog runs", "men.jpg": "Two men ride bikes."}
REFERENCES = {
    "dog.jpg": ["A dog is running on grass.", "The dog runs."],
    "men.jpg": ["Two men ride bikes.", "Cyclists on a road."],
}


def test_bleu_by_hand():
    table = NGramTable()
    references = table.count([[["the", "dog", "runs", "fast"]]])
    result = bleu(table.count([[["the", "the", "dog"]]]), references)
    # one "the" is allowed, so 2 of 3 words match, and 1 of 2 bigrams; the candidate is a word short
    penalty = math.exp(1 - 4 / 3)
    assert result["BLEU-1"].corpus == pytest.approx(penalty * 2 / 3)
    assert result["BLEU-2"].corpus == pytest.approx(penalty * math.sqrt(2 / 3 * 1 / 2))


def test_rouge_takes_precision_and_recall_from_the_best_references():
    result = rouge_l([["a", "b", "c"]], [[["a", "b"], ["a", "x", "b", "c", "y", "z"]]])
    precision, recall = 3 / 3, 2 / 2  # of the second reference and of the first
    assert result["ROUGE-L"].corpus == pytest.approx((1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision))


@pytest.mark.parametrize(
    ("first", "second", "length"), [("", "abc", 0), ("abcbdab", "bdcaba", 4), ("aaa", "aa", 2), ("x", "y", 0)]
)
def test_longest_common_subsequence(first, second, length):
    assert lcs_length(first, second) == length
    assert lcs_length(second, first) == length


def cider(references):
    table = NGramTable()
    return Cider(table.count(references), table)


def test_rewards_are_the_scores_whatever_was_sampled_before():
    references = [[caption.split() for caption in refs] for refs in (["a dog runs", "the dog"], ["two men", "a man sits"])]
    scorer = cider(references)
    sampled = [["a", "blue", "dog", "blue", "dog"], [], ["two", "men", "sit"], ["a", "dog", "runs"]]
    first = scorer.rewards([0, 1, 1, 0], sampled)
    np.testing.assert_array_equal(scorer.rewards([0, 1, 1, 0], sampled), first)
    np.testing.assert_allclose(scorer.rewards([0], sampled[:1]), first[:1])
    table = NGramTable()
    again = Cider(table.count(references), table).score(table.count([[sampled[0]], [sampled[2]]]))
    np.testing.assert_allclose(again["CIDEr"].images, first[[0, 2]])


def test_cider_of_one_image_is_zero_without_a_corpus_of_more():
    references = [[["a", "dog"]]]
    assert cider(references).rewards([0], references[0]) == 0
    table = NGramTable()
    corpus = table.count([*references, [["a", "cat"]], [["a", "bird", "sings"], ["a", "bird"]]])
    [reward] = Cider(table.count(references), table, corpus).rewards([0], [["a", "cat", "dog"]])
    # Of 3 images all have "a" and one has "cat", as has "dog": the cosine of words is 1 / sqrt(2), and lengths differ by 1.
    assert reward == pytest.approx(10 / 4 / np.sqrt(2) * np.exp(-1 / 72))


def test_score_gives_corpus_images_and_json():
    scores = score(CANDIDATES, REFERENCES, ("bleu", "rouge", "cider"), training_captions=["A dog runs!"])
    assert list(scores.corpus) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert scores.images["men.jpg"]["BLEU-4"] == pytest.approx(100)
    assert scores.corpus["ROUGE-L"] == pytest.approx(np.mean([image["ROUGE-L"] for image in scores.images.values()]))
    assert scores.diversity.distinct == 1
    assert scores.diversity.unseen == 0.5
    assert scores.diversity.length_ratio == 1
    value = json.loads(json.dumps(scores.to_json()))
    assert value["scores"].keys() == scores.corpus.keys()
    assert value["count"] == 2
    assert value["tokenizer"] == "ptb"


def test_captions_that_repeat_themselves_or_break_off_are_counted():
    captions = {
        "a.jpg": "a dog in the snow in the snow",
        "b.jpg": "a dog in the",
        "c.jpg": "the dog is in the",
        "d.jpg": "a dog runs",
        "e.jpg": "the the",
        "f.jpg": "",
        "g.jpg": "no no no",
        "h.jpg": "a man with a hat",
    }
    found = score(captions, {name: ["a dog"] for name in captions}).diversity
    assert found.repeated_bigram == 2 / 8
    assert found.incomplete == 3 / 8


def test_an_empty_candidate_scores_zero():
    scores = score(CANDIDATES | {"dog.jpg": ""}, REFERENCES)
    assert set(scores.images["dog.jpg"].values()) == {0.0}


def test_corpus_scores_of_resampled_images():
    scores = score(CANDIDATES, REFERENCES)
    bleu4 = scores.results["BLEU-4"]
    np.testing.assert_allclose(bleu4.resampled(np.array([[1.0, 1.0], [0.0, 2.0]])), [bleu4.corpus, 1.0])


@pytest.mark.parametrize(
    ("candidates", "references", "metrics", "error", "words"),
    [
        (CANDIDATES, REFERENCES, ("blue",), OptionError, "bleu, meteor"),
        (CANDIDATES, REFERENCES, (), OptionError, "choose"),
        ({}, {}, ("bleu",), DataError, "no candidates"),
        (CANDIDATES, {"dog.jpg": ["a"]}, ("bleu",), DataError, r"men\.jpg"),
        ({"dog.jpg": "a"}, REFERENCES, ("bleu",), DataError, r"men\.jpg"),
        (CANDIDATES, REFERENCES | {"dog.jpg": []}, ("bleu",), DataError, r"dog\.jpg"),
        (CANDIDATES, REFERENCES | {"dog.jpg": "a dog"}, ("bleu",), DataError, "list of one caption"),
        (CANDIDATES | {"dog.jpg": 5}, REFERENCES, ("bleu",), DataError, "type int"),
        (CANDIDATES, REFERENCES | {"dog.jpg": [None]}, ("bleu",), DataError, "type NoneType"),
    ],
)
def test_errors_name_the_image_and_the_remedy(candidates, references, metrics, error, words):
    with pytest.raises(error, match=words):
        score(candidates, references, metrics)


def test_meteor_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr(coco.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[coco\]'"):
        score(CANDIDATES, REFERENCES, ("meteor",))


def test_meteor_without_java_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="default-jre-headless"):
        score(CANDIDATES, REFERENCES, ("meteor",))


def test_spice_without_its_models_says_where_to_put_them(monkeypatch, tmp_path):
    monkeypatch.setattr(coco, "java_path", lambda metric: "java")
    monkeypatch.setattr(coco, "package_folder", lambda metric: tmp_path)
    with pytest.raises(MissingToolError, match=r"stanford-corenlp-3\.6\.0\.jar") as caught:
        score(CANDIDATES, REFERENCES, ("spice",))
    assert str(tmp_path / "spice" / "lib") in str(caught.value)


def test_what_few_or_equal_references_do_to_cider_is_said():
    assert "there is one image" in cider_caveat([["a dog", "a cat"]])
    assert "the references of all 60 images are equal" in cider_caveat([["A dog.", "a dog"], *[["a dog"]] * 59])
    assert cider_caveat([["a dog"], *[["a cat"]] * 48]).startswith("CIDEr of 49 images says little")
    assert cider_caveat([["a dog"], *[["a cat"]] * 49]) is None
    alike = {str(number): "a dog runs" for number in range(60)}
    assert score(alike, {image: [text] for image, text in alike.items()}).corpus["CIDEr"] == 0  # as is said
