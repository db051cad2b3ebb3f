"""What a check finds, and that it finds nothing where nothing is wrong."""

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from layout_samples import put
from showtell.cli.main import cli
from showtell.data import list_entries
from showtell.data.check.check import KINDS, check
from showtell.data.check.report import histogram


def picture(seed, size=(120, 90)):
    """A photo of soft blobs; each seed gives another one."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image, format="JPEG", **options):
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def jpeg(seed, size=(120, 90), quality=90):
    return encoded(picture(seed, size), quality=quality)


def rows(*values):
    return "".join(json.dumps(dict(zip(("image", "captions", "split"), value, strict=True))) + "\n" for value in values)


GOOD = [(f"{n}.jpg", [f"A photo of the number {n} ."], split) for n, split in enumerate(["train"] * 4 + ["dev", "test"])]


@pytest.fixture
def good(tmp_path):
    return put(tmp_path / "good", {"data.jsonl": rows(*GOOD), **{f"{n}.jpg": jpeg(n) for n in range(6)}})


def found(folder, **options):
    return check(list_entries(folder), **options).findings


def test_nothing_is_found_where_nothing_is_wrong(good):
    result = check(list_entries(good))
    assert result.findings == {}
    assert not result.wrong()
    assert result.splits == {"train": 4, "dev": 1, "test": 1}
    assert (result.captions, result.lengths) == (6, {6: 6})
    first = result.vocabulary[0]
    # a, photo, of, the, number and four figures; dev's and test's figures are unheard of
    assert (first.min_count, first.words, first.train, first.others) == (1, 9, 1.0, round(10 / 12, 4))
    second = result.vocabulary[1]
    assert (second.words, second.train) == (5, round(20 / 24, 4))


WRONG = {
    "missing-photo": [("absent.jpg", ["A ghost ."], "train")],
    "empty-photo": [("empty.jpg", ["Nothing to see ."], "train")],
    "unreadable-photo": [("cut.jpg", ["Half a photo ."], "train")],
    "tiny-photo": [("tiny.jpg", ["A stamp ."], "dev")],
    "odd-mode": [("cmyk.jpg", ["A print ."], "dev")],
    "photo-in-two-splits": [("same as 0.jpg", ["A copy ."], "test")],
    "near-photo-in-two-splits": [("nearly 5.jpg", ["Another copy ."], "train")],
    "duplicate-photo": [("same as 1.jpg", ["A third copy ."], "train")],
    "near-duplicate-photo": [("nearly 2.jpg", ["A fourth copy ."], "train")],
    "no-caption": [("6.jpg", [], "train")],
    "empty-caption": [("7.jpg", ["A bird .", " "], "train")],
    "damaged-caption": [("8.jpg", ["A cafÃ© in Paris ."], "train")],
    "foreign-caption": [("9.jpg", ["Ein Hund läuft auf der Wiese ."], "train")],
    "long-caption": [("10.jpg", ["very " * 60 + "long"], "train")],
    "caption-in-two-splits": [("11.jpg", ["The sea ."], "train"), ("12.jpg", ["the Sea."], "test")],
    "unused-photo": [],
}


@pytest.fixture
def files():
    return {
        "empty.jpg": b"",
        "cut.jpg": jpeg(30)[:-700],
        "tiny.jpg": jpeg(31, (63, 90)),
        "cmyk.jpg": encoded(picture(32).convert("CMYK")),
        "same as 0.jpg": jpeg(0),
        "same as 1.jpg": jpeg(1),
        "nearly 5.jpg": jpeg(5, quality=40),
        "nearly 2.jpg": jpeg(2, (200, 160)),
        "unused.png": encoded(picture(33), "PNG"),
        **{f"{n}.jpg": jpeg(n) for n in range(6, 13)},
    }


@pytest.mark.parametrize("kind", WRONG)
def test_each_kind_is_found_alone(good, files, kind):
    values = WRONG[kind]
    needed = {"unused-photo": ["unused.png"]}.get(kind, [name for name, _, _ in values])
    put(good, {"data.jsonl": rows(*GOOD, *values), **{name: files[name] for name in needed if name in files}})
    findings = found(good, workers=2)
    assert list(findings) == [kind]
    assert len(findings[kind]) == 1
    assert (needed[0] if kind != "caption-in-two-splits" else "the sea") in findings[kind][0].text


def test_everything_at_once_keeps_its_order_and_counts(good, files):
    values = [value for many in WRONG.values() for value in many]
    put(good, {"data.jsonl": rows(*GOOD, *values), **files})
    result = check(list_entries(good), workers=2)
    assert [kind for kind in KINDS if kind in WRONG] == list(result.findings)
    assert result.wrong()
    assert result.wrong(ignored=list(WRONG)[1:])
    assert not result.wrong(ignored=WRONG)


def test_a_photo_listed_in_two_splits_and_a_name_of_two_photos(tmp_path):
    values = [("0.jpg", ["A ."], "train"), ("./0.jpg", ["B ."], "dev"), ("1.jpg", ["C ."], "dev")]
    put(tmp_path, {"data.jsonl": rows(*values), "0.jpg": jpeg(0), "a/1.jpg": jpeg(1), "b/1.jpg": jpeg(2)})
    findings = found(tmp_path)
    assert findings["photo-in-two-splits"][0].text == "0.jpg (train and dev)"
    assert "1.jpg: is the name of 2 photos, a/1.jpg and b/1.jpg" in findings["ambiguous-photo"][0].text
    assert set(findings) == {"photo-in-two-splits", "ambiguous-photo", "unused-photo"}


def test_a_photo_called_otherwise_is_one_finding_and_a_near_name_is_said(good):
    files = {"6.JPEG": jpeg(6), "sea lion.jpg": jpeg(7)}
    values = [("6.jpg", ["A number six ."], "train"), ("sea lions.jpg", ["They swim ."], "train")]
    put(good, {"data.jsonl": rows(*GOOD, *values), **files})
    findings = found(good)
    assert [item.text for item in findings["renamed-photo"]] == ["6.jpg is 6.JPEG"]
    assert findings["missing-photo"][0].text.endswith("(near is sea lion.jpg)")
    assert list(findings) == ["missing-photo", "renamed-photo", "unused-photo"]


def test_histogram_bars():
    assert histogram({}) == []
    assert histogram({2: 5, 4: 1}) == [("2", 5), ("3", 0), ("4", 1)]
    wide = histogram({1: 1, 45: 2})
    assert wide[0] == ("0-2", 1)
    assert wide[-1] == ("45-47", 2)


def test_the_command(good, files, tmp_path):
    run = CliRunner().invoke(cli, ["data", "check", str(good)], standalone_mode=False)
    assert run.return_value == 0
    assert "6 photos (4 train, 1 dev, 1 test), 6 captions" in run.stdout
    assert "Nothing wrong was found" in run.stdout
    values = [(name, texts, split) for many in WRONG.values() for name, texts, split in many]
    values.append(("6.jpg", ["<script>alert(1)</script> \x1b[31m"], "train"))
    put(good, {"data.jsonl": rows(*GOOD, *values), **files})
    page, numbers = tmp_path / "out" / "page.html", tmp_path / "check.json"
    run = CliRunner().invoke(
        cli, ["data", "check", str(good), "--html", str(page), "--json", str(numbers)], standalone_mode=False
    )
    assert run.return_value == 1, run.output
    assert "near-photo-in-two-splits" in run.stdout
    assert "\x1b" not in run.stdout
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("data:image/jpeg;base64,") >= 12
    assert not any(word in text for word in ('src="http', 'href="http', "url("))
    assert "prefers-color-scheme: dark" in text
    report = json.loads(numbers.read_text(encoding="utf-8"))
    assert report["findings"]["duplicate-photo"][0]["photos"] == ["1.jpg", "same as 1.jpg"]
    assert sum(report["caption_lengths"].values()) == report["captions"]
    run = CliRunner().invoke(cli, ["data", "check", str(good), "--json", "-"], standalone_mode=False)
    assert json.loads(run.stdout) == report
    ignored = [part for kind in report["findings"] for part in ("--ignore", kind)]
    run = CliRunner().invoke(cli, ["data", "check", str(good), *ignored], standalone_mode=False)
    assert run.return_value == 0
    run = CliRunner().invoke(cli, ["data", "check", str(good), "--ignore", "typo"])
    assert run.exit_code == 2
    assert "kinds are missing-photo" in run.output
