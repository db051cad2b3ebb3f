"""Shared fixtures: a tiny data set of coloured shapes, a captioner trained on it, and the real photos where they are."""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fakes import RecordingReporter

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 50), "blue": (40, 60, 220), "yellow": (240, 220, 40)}
ALBUM = ("red", "green", "blue", "white", "orange")
SHAPES = ("fence", "square", "cross")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests as slow that need a trained model."""
    for item in items:
        if {"learnt", "dev_run"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def _real(variable: str, what: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set: it names {what}")
    return Path(folder)


@pytest.fixture(scope="session")
def flickr8k() -> Path:
    """The folder of the real Flickr8k, or a skip that says why."""
    return _real("SHOWTELL_FLICKR8K", "the folder of the real Flickr8k photos and texts")


@pytest.fixture(scope="session")
def coco() -> Path:
    """The folder of general photos from COCO, or a skip that says why."""
    return _real("SHOWTELL_COCO", "a folder of photos and captions from COCO with 400 dev photos")


def draw(colour: str, shape: str, size: int = 64, offset: int = 0) -> Image.Image:
    """A coloured shape on grey, shifted by `offset` pixels."""
    image = Image.new("RGB", (size, size), (128, 128, 128))
    pen = ImageDraw.Draw(image)
    low, high = size // 4 + offset, 3 * size // 4 + offset
    if shape == "fence":
        for bar in range(low, high, 8):
            pen.rectangle((bar, low, bar + 3, high), fill=COLOURS[colour])
    elif shape == "square":
        pen.rectangle((low, low, high, high), fill=COLOURS[colour])
    else:
        middle = (low + high) // 2
        pen.rectangle((low, middle - 4, high, middle + 4), fill=COLOURS[colour])
        pen.rectangle((middle - 4, low, middle + 4, high), fill=COLOURS[colour])
    return image


def write_flickr8k(folder: Path) -> Path:
    """A data set in Flickr8k's official layout: every colour and shape, four times in train, once in dev."""
    (folder / "images").mkdir(parents=True)
    tokens: list[str] = []
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for colour in COLOURS:
        for shape in SHAPES:
            for number, split in enumerate(("train", "train", "dev", "train", "train")):
                name = f"{colour}-{shape}-{number}.jpg"
                draw(colour, shape, offset=3 * number - 6).save(folder / "images" / name, quality=95)
                splits[split].append(name)
                tokens.append(f"{name}#0\tA {colour} {shape} .")
                tokens.append(f"{name}#1\tthere is a {colour} {shape} on grey")
    (folder / "Flickr8k.token.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    for split, names in splits.items():
        (folder / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set in Flickr8k's layout."""
    return write_flickr8k(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium; nothing is downloaded. Not for the session: while it is open, no other event loop can run."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None and os.environ.get("SHOWTELL_BROWSER") == "required":
        pytest.fail("SHOWTELL_BROWSER is `required`, but there is no Chromium on the path")
    if path is None:
        pytest.skip("no Chromium on the path: install Debian's chromium package to test pages")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path) as browser:
        yield browser


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command within this process, which is quicker: its status and what it wrote to its two streams."""

    from showtell.cli.main import main

    def run_here(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["showtell", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run_here


@pytest.fixture
def jpeg() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(data, "JPEG")
    return data.getvalue()


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Five photos `0.jpg` to `4.jpg`, the last of them in a folder below, and `broken.jpg`."""
    folder = tmp_path / "album"
    (folder / "below").mkdir(parents=True)
    for number, colour in enumerate(ALBUM):
        path = folder / f"{number}.jpg" if number < 4 else folder / "below" / f"{number}.jpg"
        Image.new("RGB", (64 + number, 48), colour).save(path)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff but no more")
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """One photo with some texture."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    path = tmp_path / "a photo.jpg"
    Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def learnt(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the debug recipe, long enough to know the shapes by heart."""
    from showtell.train.recipe import Recipe
    from showtell.train.train import train

    folder = tmp_path_factory.mktemp("learnt")
    recipe = Recipe.load("debug", [f"encoder.cache={folder / 'cache'}", "training.epochs=40", "training.max_photos=0"])
    train(recipe, shapes, folder / "run", resume=False, report=RecordingReporter())
    return folder / "run"


@pytest.fixture(scope="session")
def float_bundle(learnt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`learnt` exported in float32."""
    from showtell.export import export
    from showtell.train.run import checkpoint

    folder = tmp_path_factory.mktemp("bundles") / "shapes-float"
    export(checkpoint.find(learnt), folder)
    return folder


@pytest.fixture(scope="session")
def int8_bundle(learnt: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`learnt` exported in int8."""
    from showtell.export import calibration_inputs, export
    from showtell.train.run import checkpoint

    folder = tmp_path_factory.mktemp("bundles") / "shapes-int8"
    found = checkpoint.find(learnt)
    export(found, folder, quantize="int8", calibration=calibration_inputs(found, shapes, 24))
    return folder


@pytest.fixture(scope="session")
def dev_run(flickr8k: Path):
    """The embedded model's captions of Flickr8k's dev photos in their style, searched as it ships."""
    import showtell
    from showtell.data import read
    from showtell.evaluation.run import caption_split

    captioner = showtell.load()
    return caption_split(captioner, read(flickr8k), "dev", captioner.options(style="flickr8k"))
