"""Photos in tar and zip files and in tables: one input each, whatever is broken."""

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from showtell.archive.sources import Selection, is_one_photo, photos, reopen
from showtell.errors import DataError, ImageError, OptionError
from showtell.image import name_of, read_rgb


def names(path: Path, selection: Selection | None = None) -> list[str]:
    return [name_of(source) for source in photos([str(path)], io.BytesIO(), selection)]


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz")])
def test_a_webdataset_shard_gives_its_photos_and_counts_the_rest(tmp_path: Path, jpeg: bytes, name: str, mode: str) -> None:
    files = {"0001.jpg": jpeg, "0001.txt": b"a dog", "0001.json": b"{}", "x/0002": jpeg, ".hidden.jpg": jpeg, "0003.jpg": b"no"}
    path = tar_of(tmp_path / name, files, mode)
    selection = Selection()
    found = list(photos([str(path)], io.BytesIO(), selection))
    assert [name_of(source) for source in found] == [f"{path}/{name}" for name in ("0001.jpg", "x/0002", "0003.jpg")]
    assert read_rgb(found[0]).size == read_rgb(found[1]).size == (64, 64)
    with pytest.raises(ImageError, match=r"0003.jpg: not an image") as raised:
        read_rgb(found[2])
    assert raised.value.code == "not-an-image"
    assert selection.skipped == {"text (.txt)": 1, "text (.json)": 1, "hidden files": 1}
    again = reopen(f"{path}/x/0002")
    assert read_rgb(again).size == (64, 64)


def test_a_damaged_tar_gives_the_photos_before_the_damage_and_one_error(tmp_path: Path, jpeg: bytes) -> None:
    path = tar_of(tmp_path / "a.tar", {f"{number}.jpg": jpeg for number in range(3)})
    path.write_bytes(path.read_bytes()[: 2 * (512 + 1024) + 100])  # within the header of the third
    *whole, damage = photos([str(path)], io.BytesIO())
    assert [name_of(source) for source in whole] == [f"{path}/0.jpg", f"{path}/1.jpg"]
    with pytest.raises(ImageError, match=rf"{path}: damaged behind 1.jpg"):
        read_rgb(damage)


def test_a_zip_file_gives_its_photos(tmp_path: Path, jpeg: bytes) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("z/1.jpg", "2.jpg", "__MACOSX/2.jpg", "notes.txt"):
            archive.writestr(name, jpeg)
    selection = Selection()
    found = list(photos([str(path)], io.BytesIO(), selection))
    assert [name_of(source) for source in found] == [f"{path}/z/1.jpg", f"{path}/2.jpg"]
    assert {read_rgb(source).size for source in found} == {(64, 64)}
    assert selection.skipped == {"hidden files": 1, "text (.txt)": 1}
    assert read_rgb(reopen(f"{path}/z/1.jpg")).size == (64, 64)
    path.write_bytes(path.read_bytes()[:-30])
    [damage] = photos([str(path)], io.BytesIO())
    with pytest.raises(ImageError, match="not a whole zip file"):
        read_rgb(damage)


def test_a_damaged_member_of_a_zip_is_an_error_of_its_own(tmp_path: Path, jpeg: bytes) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("1.jpg", jpeg)
        archive.writestr("2.jpg", jpeg)
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    first, second = photos([str(path)], io.BytesIO())
    with pytest.raises(ImageError, match="1.jpg: damaged in the archive"):
        read_rgb(first)
    assert read_rgb(second).size == (64, 64)


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_names_photos_beside_it(tmp_path: Path, jpeg: bytes, suffix: str) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    rows: list[dict[str, object]] = [
        {"id": "7", "photo": "a.jpg"},
        {"id": "8", "photo": "absent.jpg"},
        {"id": "9", "photo": ""},
    ]
    table = write_table(tmp_path / f"table{suffix}", rows)
    first, second, third = photos([str(table)], io.BytesIO())
    assert (first, second) == (str(tmp_path / "a.jpg"), str(tmp_path / "absent.jpg"))
    with pytest.raises(ImageError, match=r"table.*(line|row) .*the column photo holds '', which is no path"):
        read_rgb(third)
    assert names(table, Selection(image_column="id"))[0] == str(tmp_path / "7")
    with pytest.raises(DataError, match="no column 'bild'; the columns are id, photo"):
        names(table, Selection(image_column="bild"))


def test_photos_within_a_parquet_table_are_read(tmp_path: Path, jpeg: bytes) -> None:
    table = write_table(
        tmp_path / "t.parquet", [{"image": {"bytes": jpeg, "path": "a.jpg"}}, {"image": {"bytes": jpeg, "path": None}}]
    )
    found = list(photos([str(table)], io.BytesIO()))
    assert [name_of(source) for source in found] == [f"{table}/000000/a.jpg", f"{table}/000001"]
    assert read_rgb(found[1]).size == read_rgb(reopen(f"{table}/000000/a.jpg")).size == (64, 64)


def test_a_table_without_a_column_of_paths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the columns are a, b; give --image-column"):
        names(write_table(tmp_path / "t.csv", [{"a": 1, "b": 2}]))


def test_a_table_that_breaks_off_gives_the_rows_before_and_one_error(tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    table = tmp_path / "t.jsonl"
    table.write_text('{"path": "a.jpg"}\n{"path": "a.j')
    first, damage = photos([str(table)], io.BytesIO())
    assert first == str(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r"t.jsonl: damaged behind .*line 1"):
        read_rgb(damage)


def test_globs_choose_within_folders_and_archives(tmp_path: Path, jpeg: bytes) -> None:
    for name in ("a.jpg", "b.png", "thumbs/c.jpg", "x/thumbs/d.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(jpeg)
    selection = Selection(include=("*.jpg",), exclude=("*thumbs/*",))
    assert names(tmp_path / "in", selection) == [str(tmp_path / "in" / "a.jpg")]
    assert selection.skipped["files that --include and --exclude leave out"] == 3
    tar = tar_of(tmp_path / "a.tar", {"a.jpg": jpeg, "thumbs/c.jpg": jpeg})
    assert names(tar, Selection(exclude=("thumbs/*",))) == [f"{tar}/a.jpg"]


def test_one_photo_is_a_file_named_alone(album: Path) -> None:
    assert is_one_photo([str(album / "0.jpg")])
    assert not is_one_photo([str(album)])
    assert not is_one_photo([str(album / "0.jpg"), str(album / "1.jpg")])
    assert not is_one_photo(["photos.tar"])
    assert not is_one_photo(["-"])


class Slow(io.RawIOBase):
    """A pipe whose writer is asked for the next part only when it is read."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    def read1(self, size: int) -> bytes:
        return self.parts.pop(0) if self.parts else b""


def test_a_list_is_worked_on_while_it_is_written() -> None:
    pipe = Slow([b"a.jpg\n", b"b.jpg\r", b"\nc", b".jpg"])
    found = photos(["-"], pipe)
    assert next(found) == "a.jpg"
    assert len(pipe.parts) == 3
    assert list(found) == ["b.jpg", "c.jpg"]


def test_a_folder_is_captioned_while_it_is_listed(tmp_path: Path, jpeg: bytes) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(jpeg)
    found = photos([str(tmp_path)], io.BytesIO())
    assert next(found) == str(tmp_path / "a" / "1.jpg")
    (tmp_path / "b" / "2.jpg").write_bytes(jpeg)  # seen, since its folder has not been listed yet
    assert list(found) == [str(tmp_path / "b" / "1.jpg"), str(tmp_path / "b" / "2.jpg")]


def test_lists_that_are_no_lists_are_refused_when_they_are_read() -> None:
    with pytest.raises(OptionError, match="neither a photo nor a list"):
        list(photos(["-"], io.BytesIO(b"\x7fELF\1\1\1\0\0\0")))
