"""Files that are written whole or not at all, wherever the path leads; and places that are tried before the work."""

import json
import os
import resource
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import run
from showtell import files
from showtell.errors import OutputError
from showtell.files import json_text, new_folder, replacing, sync, try_place, write_json


def fill(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_a_file_appears_whole_and_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    path = tmp_path / "below" / "file.json"
    fill(path, "one")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    path.chmod(0o600)
    with pytest.raises(TypeError), replacing(path) as temporary:
        temporary.write_text(["no text"])  # type: ignore[arg-type]
    assert path.read_text() == "one"
    fill(path, "two")
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(OutputError, match=r"file.json: cannot be written \(No such file or directory\)"):
        fill(tmp_path / "missing" / "file.json", "never")
    long = tmp_path / ("é" * 120 + ".json")  # 245 bytes; a name has 255 at most
    fill(long, "three")
    assert long.read_text() == "three"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    with pytest.raises(KeyboardInterrupt), new_folder(path) as temporary:  # noqa: PT012
        (temporary / "half").write_text("one")
        raise KeyboardInterrupt
    assert list((tmp_path / "deep").iterdir()) == []
    with new_folder(path) as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "file").write_text("one")
        assert not path.exists()
    assert (path / "below" / "file").read_text() == "one"
    assert path.stat().st_mode & 0o777 == (tmp_path / "deep").stat().st_mode & 0o777
    with pytest.raises(OutputError, match="folder: already exists; give a new folder"), new_folder(path):
        pass
    assert list((tmp_path / "deep").iterdir()) == [path]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "real.json"
    target.write_text("old")
    (tmp_path / "hop.json").symlink_to("disk/real.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "hop.json")
    fill(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "hop.json").is_symlink()
    assert target.read_text() == "new"
    (tmp_path / "nowhere.json").symlink_to("disk/fresh.json")
    fill(tmp_path / "nowhere.json", "fresh")
    assert (tmp_path / "disk" / "fresh.json").read_text() == "fresh"
    (tmp_path / "loop.json").symlink_to("loop.json")
    with pytest.raises(OutputError, match=r"loop.json: cannot be written \(Too many levels"):
        fill(tmp_path / "loop.json", "never")


def test_pipes_and_devices_are_written_to_and_stay(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    fill(pipe, "through the pipe")
    reader.join(10)
    assert got == ["through the pipe"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    fill(null, "gone")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OutputError, match=r"/dev/full: cannot be written \(No space left"):
        fill(Path("/dev/full"), "too much")


def test_scores_go_to_standard_output_as_pipe_and_as_file(tmp_path: Path) -> None:
    """Scores as JSON, then the table; `/dev/stdout` is a link to one or the other, and stays."""
    candidates, references = tmp_path / "candidates.jsonl", tmp_path / "references.jsonl"
    candidates.write_text('{"path": "a.jpg", "caption": "a dog"}\n')
    references.write_text('{"image": "a.jpg", "captions": ["a dog runs"]}\n')
    arguments = ["evaluate", "--candidates", candidates, "--references", references, "--json", "/dev/stdout"]
    before = os.lstat("/dev/stdout")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr.decode()
    assert json.JSONDecoder().raw_decode(done.stdout.decode())[0]["count"] == 1
    with open(tmp_path / "scores.txt", "wb") as file:
        done = run(*arguments, stdout=file)
    assert done.returncode == 0, done.stderr.decode()
    assert json.JSONDecoder().raw_decode((tmp_path / "scores.txt").read_text())[0]["count"] == 1
    assert (os.lstat("/dev/stdout").st_ino, os.lstat("/dev/stdout").st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("place", ["/proc/scores.json", "{file}/scores.json", "{folder}"])
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    place: str, tmp_path: Path, here: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    path = Path(place.format(file=tmp_path / "file", folder=tmp_path / "folder"))
    # What is captioned or scored is not there either: the place is named first.
    absent = tmp_path / "absent"
    for arguments in (
        ["evaluate", "--data", absent, "--json", path],
        ["evaluate", "--candidates", absent, "--references", absent, "--json", path],
        ["evaluate", "--compare", absent, absent, "--references", absent, "--json", path],
        ["data", "check", absent, "--json", path],
        ["data", "check", absent, "--html", path],
    ):
        status, _, errors = here(*arguments)
        assert status == 2
        assert errors.startswith(f"showtell: {path}: cannot be written (")
        assert len(errors.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "precious"
    missing = tmp_path / "missing" / "scores.json"
    status, _, errors = here("evaluate", "--data", absent, "--json", missing)
    assert (status, errors) == (2, f"showtell: {missing}: cannot be written (No such file or directory)\n")


def test_places_of_folders_and_pictures_are_found_before_the_work_too(
    tmp_path: Path, here: Callable[..., tuple[int, str, str]]
) -> None:
    absent = tmp_path / "absent"
    for arguments, named in (
        (["explain", absent, "--output", "/proc/absent/picture.png"], "/proc/absent/picture.png"),
        (["data", "convert", absent, "/proc/absent/data.jsonl"], "/proc/absent/data.jsonl"),
        (["evaluate", "--data", absent, "--report", "/proc/absent/report"], "/proc/absent/report"),
        (["caption", "x.jpg", "--output", "/proc/absent/captions.txt"], "/proc/absent/captions.txt"),
        (["export", absent, "--output", "/proc/absent/bundle", "--calibration", absent, "--quantize", "int8"], "/proc/absent"),
        (["average", absent, "--output", "/proc/absent/mean"], "/proc/absent/mean"),
    ):
        status, _, errors = here(*arguments)
        assert status == 2, arguments
        assert errors.startswith(f"showtell: {named}")
        assert len(errors.splitlines()) == 1


def test_a_full_disk_is_found_before_the_work(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OutputError, match=r"x.json: cannot be written \(File too large\)"):
            try_place(tmp_path / "x.json")
        with pytest.raises(OutputError, match=r"x.json: cannot be written \(File too large\)"):
            write_json(tmp_path / "x.json", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
    try_place(tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_what_was_found_is_printed_where_its_file_cannot_be_written_after_all(tmp_path: Path) -> None:
    candidates, references = tmp_path / "candidates.jsonl", tmp_path / "references.jsonl"
    candidates.write_text('{"path": "a.jpg", "caption": "a dog"}\n')
    references.write_text('{"image": "a.jpg", "captions": ["a dog"]}\n')
    done = run("evaluate", "--candidates", candidates, "--references", references, "--json", "/dev/full")
    assert done.returncode == 2
    assert "BLEU-1" in done.stdout.decode()
    assert done.stderr.decode().splitlines()[-1] == "showtell: /dev/full: cannot be written (No space left on device)"


def test_folders_are_flushed_only_where_the_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows opens no folders, and flushes no file that was opened to be read."""
    opened = os.open

    def windows_open(path: Path, flags: int, *rest: int) -> int:
        if os.path.isdir(path):  # noqa: PTH112
            raise PermissionError(13, "Permission denied")
        assert flags & os.O_ACCMODE != os.O_RDONLY
        return opened(path, flags, *rest)

    monkeypatch.setattr(files.os, "open", windows_open)
    fill(tmp_path / "file", "text")
    sync(tmp_path)
    assert (tmp_path / "file").read_text() == "text"


def test_names_that_are_not_utf8_keep_their_bytes_in_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    write_json(tmp_path / "names.json", {name: "日本"})
    assert list(json.loads((tmp_path / "names.json").read_text())) == [name]
    assert json_text("日本") == '"日本"'
