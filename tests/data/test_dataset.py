"""Data sets: splits, and the entries that are left out and counted."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from layout_samples import CAT, DOG, MEN, photos, put
from showtell.data import read
from showtell.errors import DataError


def test_random_splits_are_stable_and_keep_equal_photos_together(tmp_path):
    names = [f"{number:03}.jpg" for number in range(500)]
    rows = "".join(f"{name},A thing .\n{name},The thing .\n" for name in names)
    put(tmp_path, {"captions.txt": "image,caption\n" + rows, **{name: f"photo {name}".encode() for name in names}})
    for number in range(0, 500, 2):  # every other photo equals its neighbour
        shutil.copy(tmp_path / names[number], tmp_path / names[number + 1])
    dataset = read(tmp_path)
    splits = {s.image: s.split for s in dataset.samples}
    assert len(splits) == 500
    assert all(splits[names[n]] == splits[names[n + 1]] for n in range(0, 500, 2))
    count = Counter(splits.values())
    assert 350 <= count["train"] <= 450
    assert min(count["dev"], count["test"]) >= 20
    assert "drawn by photo with seed 0" in dataset.describe_left_out()
    assert {s.image: s.split for s in read(tmp_path).samples} == splits
    assert {s.image: s.split for s in read(tmp_path, split_seed=1).samples} != splits
    put(tmp_path, {"captions.txt": "image,caption\n" + "".join(sorted(rows.splitlines(True)[:500], reverse=True))})
    fewer = {s.image: s.split for s in read(tmp_path).samples}
    assert fewer == {name: splits[name] for name in fewer}


@pytest.mark.parametrize(("photos", "dev"), [(60, 6), (20, 5), (30, 5), (150, 15), (12, 3), (3, 0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_small_set_draws_enough_photos_for_dev(tmp_path, photos, dev, seed):
    names = [f"{number}.jpg" for number in range(photos)]
    rows = "".join(f"{name},A thing .\n" for name in names)
    put(tmp_path, {"captions.txt": "image,caption\n" + rows, **{name: name.encode() * 9 for name in names}})
    count = Counter(s.split for s in read(tmp_path, split_seed=seed).samples)
    assert dev <= count["dev"] <= max(dev, 1, photos // 4)
    assert count["train"] >= photos // 2


def test_nothing_is_dropped_without_being_counted(tmp_path):
    rows = f"{DOG},A dog .,train\n{DOG}, ,train\n{MEN},,dev\nabsent.jpg,A ghost .,dev\n{CAT},A cat .,\n"
    put(tmp_path, {"t.csv": "image,caption,split\n" + rows, **photos()})
    dataset = read(tmp_path)
    assert [(s.image, s.captions, s.split) for s in dataset.samples] == [
        (DOG, ("A dog .",), "train"),
        (CAT, ("A cat .",), None),
    ]
    assert dataset.missing == ("absent.jpg",)
    assert dataset.describe_left_out().splitlines() == [
        "1 of 3 listed photos are missing: absent.jpg",
        f"2 captions are empty, of: {DOG}, {MEN}",
        f"1 listed photos have no caption: {MEN}",
        f"1 photos are in no split: {CAT}",
    ]


def test_a_photo_in_two_splits_is_an_error(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption,split\n{DOG},A .,train\n./{DOG},B .,test\n", **photos()})
    with pytest.raises(DataError, match=r"t\.csv, line 3: .* is already listed in train, at .*t\.csv, line 2"):
        read(tmp_path)


def test_a_data_set_is_called_as_its_folder(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shapes)
    assert read(shapes).name == read(Path()).name == shapes.name


def test_where_photos_are_missing_the_files_that_are_none_are_counted(tmp_path):
    put(tmp_path, {"t.csv": "image,caption\na.jpg,A dog .\n", "a.CR2": "II*\0", "b.cr2": "II*\0", "c.mp4": "x", "d.jxl": "x"})
    kinds = r"2 camera raw \(\.cr2\), 1 video \(\.mp4\), 1 unknown \(\.jxl\), 1 text"
    with pytest.raises(DataError, match=rf"1 of 1 listed photos are missing: a\.jpg.*no photos: {kinds}"):
        read(tmp_path)


def test_files_that_are_no_photos_and_no_text_are_counted(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption\n{DOG},A dog .\n", **photos(), "a.nef": "MM", "b.mov": "x", "c.txt": "x"})
    assert "files that are no photos: 1 camera raw (.nef), 1 video (.mov)" in read(tmp_path).describe_left_out().splitlines()


@pytest.mark.real
def test_the_real_flickr8k(flickr8k: Path) -> None:
    dataset = read(flickr8k)
    assert len(dataset.split("train")) == 6000
    assert len(dataset.split("dev")) == 1000
    assert all(len(sample.captions) == 5 for sample in dataset.samples)
    assert dataset.photos.read(dataset.samples[0].image)[:2] == b"\xff\xd8"
