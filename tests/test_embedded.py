"""The model inside the package: whole, small, and as good on real photos as the README says."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import showtell
from showtell import metrics
from showtell.bundle import CARD, EMBEDDED, MODELS, Bundle
from showtell.data import read
from showtell.evaluation.run import Run, caption_split
from showtell.metrics.diversity import repetition
from showtell.text.words import MAY_REPEAT, OF_SEVERAL

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))


def test_it_loads_and_is_small() -> None:
    bundle = Bundle.find(None)
    assert bundle.config.quantization == "int8"
    assert bundle.config.licence
    assert sum(file.stat().st_size for file in (MODELS / EMBEDDED).iterdir()) < 45e6
    assert Bundle.find(EMBEDDED).folder == bundle.folder
    assert (bundle.folder / CARD).read_text(encoding="utf-8") == (ROOT / "docs" / CARD).read_text(encoding="utf-8")


def test_it_captions_photos_it_never_saw() -> None:
    assert len(PHOTOS) >= 5
    captions = showtell.load()(PHOTOS)
    assert len({caption.text for caption in captions}) > len(captions) // 2
    by_name = {photo.stem: caption.text for photo, caption in zip(PHOTOS, captions, strict=True)}
    assert "man" in by_name["photographer"].split()
    for caption in captions:
        assert 3 <= len(caption.tokens) <= 20
        assert not {"<unknown>", "<pad>", "<begin>", "<end>"} & set(caption.tokens)


def test_it_repeats_no_words_where_told_so() -> None:
    captioner = showtell.load()

    def said(**options: bool) -> list[tuple[str, ...]]:
        return [each.tokens for best in captioner(PHOTOS, num_captions=5, **options) for each in (best, *best.alternatives)]

    plain = [word for tokens in said(no_repeat_words=False) for word in set(tokens) if tokens.count(word) > 1]
    assert not set(plain) <= MAY_REPEAT | OF_SEVERAL
    careful = said(no_repeat_words=True)
    assert len(careful) == 5 * len(PHOTOS)
    for tokens in careful:
        assert not repetition(tokens).around_and
        assert not repetition(tokens).doubled_word
        assert {word for word in tokens if tokens.count(word) > 1} <= MAY_REPEAT | OF_SEVERAL
    assert any(tokens.count("a") > 1 for tokens in careful)


@pytest.mark.real
def test_scores_on_flickr8k(dev_run: Run) -> None:
    assert len(dev_run.candidates) == 1000
    scores = metrics.score(dev_run.candidates, dev_run.references).corpus
    assert scores["CIDEr"] >= 67
    assert scores["BLEU-4"] >= 25


@pytest.mark.real
def test_scores_on_general_photos(coco: Path) -> None:
    captioner = showtell.load()
    run = caption_split(captioner, read(coco), "dev", captioner.options())
    assert len(run.candidates) == 400
    scores = metrics.score(run.candidates, run.references)
    assert scores.corpus["CIDEr"] >= 95
    assert scores.corpus["BLEU-4"] >= 25
    assert scores.diversity.false_people <= 0.05
    assert scores.diversity.false_dogs <= 0.015


def test_wheel_installs_and_captions_without_torch(tmp_path: Path) -> None:
    """As a user gets it: built, installed into a fresh environment, run from another folder."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True)
    [wheel] = tmp_path.glob("*.whl")
    contents = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in contents} == {"showtell", f"showtell-{wheel.name.split('-')[1]}.dist-info"}
    assert not [name for name in contents if name.endswith((".pyc", ".pkl", ".pt"))]
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", wheel], check=True)
    for module in ("torch", "onnx", "pydantic"):
        assert subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode != 0

    command = [python.with_name("showtell"), "caption", PHOTOS[0].parent, "--format", "jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["path"]).name for record in records] == [photo.name for photo in PHOTOS]
    assert all(record["caption"] and record["model"] == EMBEDDED for record in records)
    [site] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 250e6
