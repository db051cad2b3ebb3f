"""Reading Flickr8k: the official layout, what may be missing and what may not."""

import shutil
import tarfile
from pathlib import Path

import pytest

from showtell.data import PhotoStore, read
from showtell.errors import DataError, ImageError


@pytest.fixture
def copy(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "data"))


def test_reads_samples_splits_and_photos(shapes: Path) -> None:
    dataset = read(shapes)
    assert [len(dataset.split(split)) for split in ("train", "dev")] == [48, 12]
    sample = dataset.split("dev")[0]
    assert sample.image == "red-fence-2.jpg"
    assert sample.captions == ("A red fence .", "there is a red fence on grey")
    assert dataset.photos.read(sample.image) == (shapes / "images" / sample.image).read_bytes()
    assert dataset.describe_left_out() is None
    with pytest.raises(DataError, match="test"):
        dataset.split("test")


def test_photos_in_tar_files(copy: Path) -> None:
    photo = (copy / "images" / "red-fence-2.jpg").read_bytes()
    with tarfile.open(copy / "images-0.tar", "w") as tar:
        tar.add(copy / "images", arcname="images")
    shutil.rmtree(copy / "images")
    dataset = read(copy)
    assert len(dataset.samples) == 60
    assert dataset.photos.read("red-fence-2.jpg") == photo


def test_a_few_missing_photos_are_counted_and_named(copy: Path) -> None:
    (copy / "images" / "red-fence-0.jpg").unlink()
    (copy / "images" / "red-cross-2.jpg").unlink()
    dataset = read(copy)
    assert dataset.missing == ("red-fence-0.jpg", "red-cross-2.jpg")
    assert len(dataset.samples) == 58
    assert "2 of 60" in (dataset.describe_left_out() or "")
    assert "red-fence-0.jpg" in (dataset.describe_left_out() or "")


def test_most_photos_missing_is_an_error(copy: Path) -> None:
    shutil.rmtree(copy / "images")
    with pytest.raises(DataError, match=r"60 of 60 listed photos are missing: red-fence-0\.jpg"):
        read(copy)


def test_broken_lines_name_file_and_line(copy: Path) -> None:
    token = copy / "Flickr8k.token.txt"
    good = token.read_text()
    token.write_text(good.replace("red-cross-1.jpg#0\t", "red-cross-1.jpg#0 ", 1))
    with pytest.raises(DataError, match=r"Flickr8k\.token\.txt, line 23"):
        read(copy)
    token.write_text(good)
    split = copy / "Flickr_8k.devImages.txt"
    split.write_text("red-cross-1.jpg\n")
    with pytest.raises(
        DataError, match=r"devImages\.txt, line 1: red-cross-1\.jpg is already listed in train, at .*trainImages\.txt, line 10;"
    ):
        read(copy)
    split.write_text("red-fence-2.jpg\nunheard-of.jpg\n")
    assert "unheard-of.jpg" in (read(copy).describe_left_out() or "")
    split.unlink()
    with pytest.raises(DataError, match=r"Flickr_8k\.devImages\.txt"):
        read(copy)
    with pytest.raises(DataError, match="no such file or folder"):
        read(copy / "nowhere")


def test_broken_and_compressed_tars_are_named(copy: Path, tmp_path: Path) -> None:
    with tarfile.open(copy / "photos.tar", "w:gz") as tar:
        tar.add(copy / "images", arcname="images")
    with pytest.raises(DataError, match=r"photos\.tar.*uncompressed"):
        read(copy)
    with pytest.raises(ImageError, match=r"x\.jpg"):
        PhotoStore().read("x.jpg")


@pytest.mark.real
def test_the_real_thing(flickr8k: Path) -> None:
    dataset = read(flickr8k)
    assert len(dataset.split("train")) == 6000
    assert len(dataset.split("dev")) == 1000
    assert all(len(sample.captions) == 5 for sample in dataset.samples)
    assert dataset.photos.read(dataset.samples[0].image)[:2] == b"\xff\xd8"
