"""Intervals, the paired test, tables and the report page."""

import io
import json
import random
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from showtell.errors import DataError, ImageError, OutputError
from showtell.evaluation import (
    compare,
    compare_files,
    evaluate,
    evaluate_files,
    print_comparison,
    print_evaluation,
    write_report,
)

WORDS = ["a", "dog", "man", "red", "runs", "sits", "on", "the", "grass", "beach", "with", "ball"]


def made_up(images=60, noise=0.3, seed=0):
    """References, and candidates that are references with words replaced at random."""
    rng = random.Random(seed)
    references = {f"{i}.jpg": [" ".join(rng.choices(WORDS, k=8)) for _ in range(3)] for i in range(images)}
    candidates = {
        image: " ".join(rng.choice(WORDS) if rng.random() < noise else word for word in captions[0].split())
        for image, captions in references.items()
    }
    return candidates, references


def photo(name):
    if name == "1.jpg":
        raise ImageError("not-found", "no such photo")
    data = io.BytesIO()
    Image.new("RGB", (640, 480), "teal").save(data, "PNG")
    return data.getvalue()


def printed(print_it, *values):
    console = Console(file=io.StringIO(), width=120)
    print_it(*values, console)
    return console.file.getvalue()


def test_intervals_hold_the_score_and_narrow_with_more_images():
    few, many = (evaluate(*made_up(images)) for images in (20, 320))
    for name, value in many.scores.corpus.items():
        interval = many.intervals[name]
        assert interval.low <= value <= interval.high
        assert interval.high - interval.low < few.intervals[name].high - few.intervals[name].low


def test_what_one_image_can_tell_is_said_wherever_its_scores_are_shown(tmp_path):
    found, other = evaluate(*made_up(1)), evaluate(*made_up(60))
    assert "CIDEr is 0 whatever" in printed(print_evaluation, found)
    assert "CIDEr is 0 whatever" in printed(print_comparison, compare(found, found))
    assert "CIDEr is 0 whatever" in write_report(found, tmp_path / "page").read_text()
    assert "CIDEr is 0 whatever" in found.to_json()["notes"][0]
    assert found.scores.corpus["CIDEr"] == 0
    assert "CIDEr of 20 images says little" in printed(print_evaluation, evaluate(*made_up(20)))
    assert other.notes == evaluate(*made_up(1), ["bleu"]).notes == []
    assert "whatever" not in printed(print_evaluation, other)


def test_a_mean_has_the_interval_of_its_standard_error():
    found = evaluate(*made_up(400), ("rouge",), samples=4000)
    values = found.scores.results["ROUGE-L"].images
    error = 100 * values.std() / np.sqrt(len(values))
    interval = found.intervals["ROUGE-L"]
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_the_paired_test_tells_better_from_alike():
    good, references = made_up(noise=0.2)
    bad, _ = made_up(noise=0.7)
    comparison = compare(evaluate(bad, references, name="bad"), evaluate(good, references, name="good"))
    for found in comparison.differences.values():
        assert found.difference == pytest.approx(found.second - found.first)
        assert found.interval.low < found.difference < found.interval.high
        assert found.p_value < 0.01
    same = compare(comparison.second, comparison.second).differences["CIDEr"]
    assert (same.difference, same.p_value) == (0, 1)


def test_p_values_of_equally_good_candidates_are_spread_evenly():
    """Under the null hypothesis a p-value is below x about x of the time."""
    values = []
    for seed in range(60):
        rng = random.Random(seed)
        first, references = made_up(seed=seed)
        second = {image: rng.choice([caption, " ".join(reversed(caption.split()))]) for image, caption in first.items()}
        third = {image: rng.choice([caption, " ".join(reversed(caption.split()))]) for image, caption in first.items()}
        pair = [evaluate(captions, references, ("rouge",), samples=1) for captions in (second, third)]
        values.append(compare(*pair, samples=200).differences["ROUGE-L"].p_value)
    assert 0.3 < np.mean(values) < 0.7
    assert np.mean(np.array(values) < 0.1) < 0.25


def test_comparison_wants_the_same_images():
    candidates, references = made_up()
    fewer = {image: candidates[image] for image in list(candidates)[1:]}
    first = evaluate(candidates, references, samples=10)
    with pytest.raises(DataError, match=r"1 images are in one only, 0\.jpg"):
        compare(first, evaluate(fewer, {image: references[image] for image in fewer}, samples=10))
    with pytest.raises(DataError, match=r"different references, of 3\.jpg"):
        compare(first, evaluate(candidates, references | {"3.jpg": ["a dog"]}, samples=10))


def test_files(tmp_path):
    candidates, references = made_up()
    for name, kept in (("a.json", 60), ("b.json", 50)):
        results = [{"image_id": image, "caption": caption} for image, caption in list(candidates.items())[:kept]]
        (tmp_path / name).write_text(json.dumps(results))
    lines = [json.dumps({"image": image, "captions": captions}) for image, captions in references.items()]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    paths = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "r.jsonl"

    found = evaluate_files(paths[0], paths[2])
    assert found.scores.corpus == evaluate(candidates, references).scores.corpus
    assert found.name == "a.json"
    with pytest.raises(DataError, match="10 of 60 images with references have no candidate"):
        compare_files(*paths)
    partial = evaluate_files(paths[1], paths[2], partial=True)
    assert partial.without_candidate == 10
    assert "10 without a candidate left out" in printed(print_evaluation, partial)
    comparison = compare_files(*paths, partial=True)
    assert len(comparison.first.candidates) == 50
    assert comparison.differences["CIDEr"].difference == 0


def test_json_and_tables_hold_every_metric():
    candidates, references = made_up()
    found = evaluate(candidates, references, training_captions=list(candidates.values())[:30])
    value = json.loads(json.dumps(found.to_json()))
    assert value["scores"].keys() == value["intervals"].keys() == found.scores.corpus.keys()
    assert value.keys() >= {"images", "diversity", "tokenizer", "count", "version", "versions"}
    assert value["images"]["0.jpg"].keys() == value["scores"].keys()
    assert value["captions"] == candidates
    comparison = compare(found, found, samples=10)
    assert json.loads(json.dumps(comparison.to_json()))["differences"]["BLEU-4"]["p_value"] == 1
    for text in (printed(print_evaluation, found), printed(print_comparison, comparison)):
        assert all(name in text for name in found.scores.corpus)
    assert "50.0%" in printed(print_evaluation, found)


class Page(HTMLParser):
    """Collects tags, and the JSON that the page carries."""

    def __init__(self):
        super().__init__()
        self.tags, self.data, self._inside = [], "", False

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") == "data"

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        self.data += data if self._inside else ""


def test_report_is_self_contained_and_escapes(tmp_path):
    candidates, references = made_up(5)
    candidates["0.jpg"] = "</script><script>alert(1)</script>"
    found = evaluate(candidates, references, name="<b>mine</b>")
    path = write_report(found, tmp_path / "report", photo)

    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    cards = json.loads(page.data)
    assert "<b>mine" not in text
    assert "<script>alert" not in text
    assert {card["image"]: card["candidate"] for card in cards} == candidates
    assert [card["scores"]["CIDEr"] for card in cards] == sorted((card["scores"]["CIDEr"] for card in cards), reverse=True)
    assert not [attrs for _, attrs in page.tags if str(attrs.get("src", attrs.get("href", ""))).startswith("http")]
    assert sum(tag == "svg" for tag, _ in page.tags) == len(found.scores.corpus)
    pictures = {card["image"]: card["picture"] for card in cards}
    assert pictures.pop("1.jpg") is None
    for name in pictures.values():
        with Image.open(path.parent / name) as image:
            assert max(image.size) == 320


def test_report_replaces_a_report_and_nothing_else(tmp_path):
    found = evaluate(*made_up(3), samples=10)
    write_report(found, tmp_path / "report")
    write_report(found, tmp_path / "report")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    with pytest.raises(OutputError, match="holds other files"):
        write_report(found, tmp_path / "notes")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write_report(found, tmp_path / "file")
