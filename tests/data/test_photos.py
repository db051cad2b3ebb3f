"""Photos and their names: paths, tar files, links, and names that differ a little from the photo's."""

import tarfile
from pathlib import Path

import pytest

from layout_samples import CAT, DOG, MEN, captions_of, jpeg, lines, photos, put, tar
from showtell.data import PhotoStore, read
from showtell.errors import DataError, ImageError


def test_paths_lead_anywhere_tars_count_as_folders(tmp_path):
    put(tmp_path / "else where", photos())
    (tmp_path / "else where" / "p.tar").write_bytes(tar({f"in/{MEN}": jpeg(MEN)}))
    (tmp_path / "else where" / MEN).unlink()
    names = [f"../else where/{DOG}", f"../else where/p.tar/in/{MEN}", str(tmp_path / "else where" / CAT)]
    put(tmp_path / "data", {"data.jsonl": lines(*({"image": name, "caption": "A thing ."} for name in names))})
    dataset = read(tmp_path / "data")
    assert [s.image for s in dataset.samples] == names
    assert [dataset.photos.read(name) for name in names] == [jpeg(DOG), jpeg(MEN), jpeg(CAT)]
    assert [dataset.photos.size(name) for name in names] == [len(jpeg(DOG)), len(jpeg(MEN)), len(jpeg(CAT))]


def test_windows_paths_and_hidden_twins(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption\nsome\\{DOG},A dog .\n", f"some/{DOG}": jpeg(DOG), f"some/._{DOG}": b"macOS"})
    assert len(read(tmp_path).samples) == 1


def test_a_name_that_means_two_photos_is_an_error_unless_one_is_in_a_tar(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption\n{DOG},A dog .\n", f"a/{DOG}": jpeg(DOG), "x.tar": tar({f"y/{DOG}": jpeg(MEN)})})
    dataset = read(tmp_path)
    assert dataset.photos.read(DOG) == jpeg(DOG)
    put(tmp_path, {f"b/{DOG}": jpeg(MEN)})
    with pytest.raises(DataError, match=f"{DOG}: is the name of 2 photos, a/{DOG} and b/{DOG}"):
        read(tmp_path)


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    put(tmp_path / "elsewhere", photos())
    put(tmp_path / "data", {"t.csv": f"image,caption\n{DOG},A dog .\n"})
    (tmp_path / "data" / "photos").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "again2").symlink_to(tmp_path / "elsewhere")
    dataset = read(tmp_path / "data")
    assert [s.image for s in dataset.samples] == [DOG]
    assert len(dataset.photos) == 3


def test_paths_that_wander_mean_the_photo_they_lead_to(tmp_path):
    names = [f"../photos/{DOG}", str(tmp_path / "photos" / MEN), f"x/../../photos/./{CAT}", f"photos/{DOG}"]
    put(tmp_path, {"captions/t.csv": "image,caption\n" + "".join(f"{name},A thing .\n" for name in names), **photos("photos/")})
    dataset = read(tmp_path)
    assert [s.image for s in dataset.samples] == [f"photos/{name}" for name in (DOG, MEN, CAT)]
    assert len(dataset.samples[0].captions) == 2
    assert dataset.missing == ()


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("x.JPG", "x.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        ("x.jpg", "x.jpeg"),
        ("x", "x.png"),
        ("photos/x.jpg", "Photos/X.JPG"),
        ("x.jpg", "x.jpg?width=600"),
    ],
)
def test_a_photo_that_is_called_nearly_so_is_found_and_said(tmp_path, listed, there):
    put(tmp_path, {"t.csv": f"image,caption\n{listed},A dog .\n", there: jpeg(DOG)})
    dataset = read(tmp_path)
    assert [dataset.photos.read(s.image) for s in dataset.samples] == [jpeg(DOG)]
    assert f"1 photos have another name in the caption files: {listed} is {there}" in dataset.describe_left_out()


def test_a_nearly_equal_name_is_not_taken_from_another_photo_nor_guessed(tmp_path):
    rows = "a.png,Gone .\na.jpg,There .\nb.jpg,Which ?\nabsent.jpg,No .\nmen_at_sea.jpg,Men .\n"
    files = {name: jpeg(DOG) for name in ("a.jpg", "b.png", "b.jpeg", "men_at_see.jpg")}
    put(tmp_path, {"t.csv": "image,caption\n" + rows, **files, "x1.jpg": jpeg(DOG)})
    rows += "x1.jpg,More .\n" + "".join(f"y{n}.jpg,Y .\n" for n in range(9))
    put(tmp_path, {"t.csv": "image,caption\n" + rows, **{f"y{n}.jpg": jpeg(DOG) for n in range(9)}})
    dataset = read(tmp_path)
    assert "a.png" in dataset.missing
    assert captions_of(tmp_path)["a.jpg"] == ("There .",)
    assert "b.jpg (near is b.jpeg or b.png)" in dataset.describe_left_out()
    assert dataset.photos.near("men_at_sea.jpg") == " (near is men_at_see.jpg)"


@pytest.mark.parametrize("name", ["22.jpg.1", "a1b2", "dogs.jpg?width=600", "dog.image"])
@pytest.mark.parametrize("folder", ["", "Images/", "tar"])
def test_photos_without_a_photos_suffix_are_known_by_their_bytes(tmp_path, name, folder):
    files = (
        {"photos.tar": tar({f"in/{name}": jpeg(DOG), "in/notes": b"none"})}
        if folder == "tar"
        else {f"{folder}{name}": jpeg(DOG)}
    )
    put(tmp_path, {"t.csv": f"image,caption\n{name},A dog .\n", **files})
    dataset = read(tmp_path)
    assert [dataset.photos.read(s.image) for s in dataset.samples] == [jpeg(DOG)]
    assert len(dataset.photos) == 1
    assert dataset.missing == ()


def test_folders_of_thumbnails_and_bins_are_skipped(tmp_path):
    put(tmp_path, {"t.csv": f"image,caption\n{DOG},A dog .\n", DOG: jpeg(DOG)})
    for folder in ("@eaDir", "#recycle", ".thumbnails", "$RECYCLE.BIN", "__MACOSX"):
        put(tmp_path / folder, {DOG: jpeg(MEN)})
    assert read(tmp_path).photos.read(DOG) == jpeg(DOG)


def test_broken_and_compressed_tars_are_named(tmp_path: Path) -> None:
    put(tmp_path, {"t.csv": f"image,caption\n{DOG},A dog .\n", DOG: jpeg(DOG)})
    with tarfile.open(tmp_path / "photos.tar", "w:gz") as archive:
        archive.add(tmp_path / DOG, DOG)
    with pytest.raises(DataError, match=r"photos\.tar.*uncompressed"):
        read(tmp_path)
    with pytest.raises(ImageError, match=r"x\.jpg"):
        PhotoStore().read("x.jpg")
