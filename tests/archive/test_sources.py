"""What a folder gives to be captioned, and what of it is skipped and counted."""

from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from showtell.archive.sources import Selection, photos
from showtell.cli.main import cli


def put(folder: Path, names: dict[str, bytes]) -> Path:
    for name, data in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("name", ["22.jpg.1", "a1b2", "dogs.jpg?width=600", "x/dog.JPG"])
def test_a_folder_gives_photos_whatever_they_are_called(tmp_path: Path, jpeg: bytes, name: str) -> None:
    put(tmp_path, {name: jpeg, "notes": b"words"})
    assert list(photos([str(tmp_path)], BytesIO())) == [str(tmp_path / name)]


def test_what_a_folder_holds_besides_is_counted_by_kind(tmp_path: Path, jpeg: bytes) -> None:
    files = {
        "a.CR2": b"II*\0raw",
        "b.cr2": b"II*\0raw",
        "c.mp4": b"",
        "d.jxl": b"\xff\x0a",
        "e.txt": b"",
        "f": b"",
        ".g.jpg": jpeg,
    }
    put(tmp_path, {**files, "@eaDir/h.jpg": jpeg, "#recycle/i.jpg": jpeg, ".thumbnails/j.jpg": jpeg, "k.jpg": jpeg})
    skipped: Counter[str] = Counter()
    assert list(photos([str(tmp_path)], BytesIO(), Selection(skipped=skipped))) == [str(tmp_path / "k.jpg")]
    assert +skipped == {
        "hidden folders": 3,
        "hidden files": 1,
        "camera raw (.cr2)": 2,
        "video (.mp4)": 1,
        "unknown (.jxl)": 1,
        "text (.txt)": 1,
        "unknown (no suffix)": 1,
    }


def test_links_to_folders_are_followed_once(tmp_path: Path, jpeg: bytes) -> None:
    put(tmp_path, {"a/1.jpg": jpeg, "else/2.jpg": jpeg})
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "else")
    assert list(photos([str(tmp_path / "a")], BytesIO())) == [str(tmp_path / "a" / name) for name in ("1.jpg", "more/2.jpg")]


def test_a_folder_without_photos_says_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path, {"a.CR2": b"II*\0", "b.nef": b"MM\0*", "c.jxl": b"\xff\x0a"})
    done = CliRunner().invoke(cli, ["caption", str(tmp_path)])
    assert done.exit_code == 2
    assert "what is there: 1 camera raw (.cr2), 1 camera raw (.nef), 1 unknown (.jxl)" in done.stderr


def test_the_summary_counts_what_was_skipped(tmp_path: Path, jpeg: bytes) -> None:
    put(tmp_path, {"a.mp4": b"", "b.jpg": jpeg})
    done = CliRunner().invoke(cli, ["caption", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 0
    assert "skipped in folders: 1 video (.mp4)" in done.stderr
