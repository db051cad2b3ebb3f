"""`showtell explain`: the picture of attention maps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import showtell
from commands import run
from conftest import draw
from showtell.errors import OutputError
from showtell.runtime.explain import TILE, Explained, explain, heat, picture_format, save, sheet
from showtell.types import Caption


def attending_to(field: int) -> np.ndarray:
    """A map with most of its weight in one field of the grid."""
    return np.where(np.arange(49) == field, 0.52, 0.01).reshape(7, 7).astype(np.float32)


def test_the_photo_is_left_clear_where_the_weight_is() -> None:
    photo = Image.new("RGB", (350, 140), (200, 200, 200))  # fields of 50 x 20 pixels
    bright = np.asarray(heat(photo, attending_to(7 * 2 + 5))).mean(-1)  # third row, sixth column
    assert bright.shape == (140, 350)
    top, left = np.unravel_index(bright.argmax(), bright.shape)
    assert (top // 20, left // 50) == (2, 5)
    assert bright[50, 275] > 180
    assert bright[130, 25] < 80


def test_even_attention_has_no_dark_edge() -> None:
    even = np.asarray(heat(Image.new("RGB", (70, 70), (200, 200, 200)), np.full((7, 7), 1 / 49)))
    assert np.ptp(even.reshape(-1, 3), axis=0).max() == 0


def test_a_sheet_has_a_tile_for_the_photo_and_one_a_word() -> None:
    photo = Image.new("RGB", (300, 200), (200, 200, 200))
    tokens = ("a", "very", "long", "caption", "about", "nothing", "at", "all")
    explained = Explained(Caption(" ".join(tokens), -0.7, tokens), np.stack([attending_to(24)] * len(tokens)))
    once, twice = (np.asarray(sheet(photo, [explained] * count, "a model")) for count in (1, 2))
    grey = (np.abs(once.astype(int) - 200).max(-1) == 0).sum()
    assert grey >= TILE * TILE * 2 // 3  # the untouched photo, in its own shape
    assert twice.shape[1] == once.shape[1]
    assert twice.shape[0] > 1.8 * once.shape[0]


def test_a_caption_of_one_word_and_one_too_long_for_a_line() -> None:
    for tokens in (("dog",), ("incomprehensibilities",) * 20):
        explained = Explained(Caption(" ".join(tokens), -0.7, tokens), np.stack([attending_to(0)] * len(tokens)))
        page = np.asarray(sheet(Image.new("RGB", (20, 400)), [explained], "a model"))
        assert (page[:, -20:] == 255).all()  # nothing runs over the margin


def test_every_caption_asked_for_is_explained() -> None:
    captioner = showtell.load(threads=1)
    one, two = (explain(captioner, draw("red", "cross"), captioner.options(num_captions=count)) for count in (1, 2))
    assert two.height > one.height


def test_formats_by_suffix(tmp_path: Path) -> None:
    for suffix in (".png", ".JPG", ".webp", ".pdf"):
        save(Image.new("RGB", (30, 20)), tmp_path / f"picture{suffix}")
    assert (tmp_path / "picture.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(tmp_path / "picture.JPG") as picture:
        assert picture.format == "JPEG"
    with pytest.raises(OutputError, match="must be one of .png"):
        picture_format(Path("picture.gif"))
    with pytest.raises(OutputError, match="cannot be written"):
        save(Image.new("RGB", (30, 20)), tmp_path / "nowhere" / "picture.png")


def test_command(photo: Path, tmp_path: Path) -> None:
    output = tmp_path / "picture.png"
    done = run("explain", photo, "--output", output, "--threads", "1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    with Image.open(output) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert min(picture.size) > TILE
    written = output.read_bytes()
    done = run("explain", photo, "--output", output)
    assert done.returncode == 2
    assert b"already exists; give another file or --overwrite" in done.stderr
    assert output.read_bytes() == written


def test_command_names_what_is_wrong(tmp_path: Path) -> None:
    done = run("explain", tmp_path / "photo.jpg", "--output", tmp_path / "picture.tiff")
    assert done.returncode == 2
    assert b"the suffix says the format" in done.stderr
    done = run("explain", tmp_path / "photo.jpg", "--output", tmp_path / "picture.png", "--threads", "1")
    assert done.returncode == 2
    assert b"photo.jpg" in done.stderr
    assert not (tmp_path / "picture.png").exists()
