"""What Windows lacks is not needed: captioning, evaluation and the data tools, with POSIX's modules and calls taken away."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import write_flickr8k
from showtell.data import read
from showtell.data.convert import convert

PHOTO = Path(__file__).parent.parent / "examples" / "photos" / "cat.jpg"
LIKE_WINDOWS = """
import os, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "fork", "mkfifo", "getuid", "geteuid", "getgid"):
    if hasattr(os, name):
        delattr(os, name)
opened = os.open

def windows_open(path, flags, *rest, **more):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    handle = opened(path, flags, *rest, **more)
    readable_only[handle] = flags & os.O_ACCMODE == os.O_RDONLY
    return handle

def windows_fsync(handle):
    if readable_only.get(handle):
        raise OSError(9, "Bad file descriptor")

readable_only = {}
os.open, os.fsync = windows_open, windows_fsync
"""


def like_windows(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIKE_WINDOWS + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_commands_run_without_what_windows_lacks(tmp_path: Path) -> None:
    data = write_flickr8k(tmp_path / "data")
    commands = [
        ["caption", PHOTO, "--output", tmp_path / "captions.jsonl"],
        ["explain", PHOTO, "--output", tmp_path / "picture.png"],
        ["data", "check", data, "--json", tmp_path / "check.json", "--html", tmp_path / "check.html"],
        ["data", "convert", data, tmp_path / "data.jsonl"],
        ["data", "convert", data, tmp_path / "tars", "--format", "webdataset"],
        ["evaluate", "--data", data, "--json", tmp_path / "scores.json", "--report", tmp_path / "report"],
        ["evaluate", "--data", data, *["--model", "lite2-lstm-general"] * 2],
    ]
    code = """
import json
from showtell.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["showtell", *arguments]
    try:
        main()
    except SystemExit as ended:
        print(*arguments[:2], ended.code, file=sys.stderr)
"""
    done = like_windows(code, json.dumps([[str(part) for part in command] for command in commands]))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    ends = [
        line.rsplit(" ", 1)[-1] for line in done.stderr.splitlines() if line.startswith(("caption ", "explain ", "data ", "ev"))
    ]
    assert ends == ["0", "0", "1", "0", "0", "0", "0"], done.stderr  # the drawn photos resemble each other, which `check` finds
    assert json.loads((tmp_path / "captions.jsonl").read_text())["status"] == "ok"
    assert json.loads((tmp_path / "scores.json").read_text())["count"] == 12
    assert len(read(tmp_path / "data.jsonl").samples) == len(read(tmp_path / "tars").samples) == 60
    assert (tmp_path / "report" / "index.html").is_file()
    assert (tmp_path / "picture.png").is_file()


def test_a_run_can_be_claimed_without_locks(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from showtell.train.run.folder import claimed
from showtell.train.recipe import Recipe
with claimed(Path(sys.argv[1]), Recipe.load("debug", []), False):
    print("claimed")
"""
    done = like_windows(code, tmp_path / "run")
    assert done.stdout == "claimed\n", done.stderr


def test_photos_on_another_drive_are_named_by_their_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_flickr8k(tmp_path / "data")

    def relpath(path: object, start: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", relpath)
    convert(read(data), tmp_path / "data.jsonl")
    first = json.loads((tmp_path / "data.jsonl").read_text().splitlines()[0])["image"]
    assert Path(first).is_absolute()
    assert Path(first).is_file()
    monkeypatch.undo()
    assert len(read(tmp_path / "data.jsonl").samples) == 60
