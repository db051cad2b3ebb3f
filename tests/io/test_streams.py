"""Standard streams that are closed or full, encodings that lack a name's characters, names that would steer a terminal."""

import codecs
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run
from showtell.archive.sinks import JsonlSink, TextSink, to_line
from showtell.archive.sources import photos
from showtell.errors import OptionError
from showtell.io.streams import ESCAPED, one_line, open_text
from showtell.types import Caption, Record

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg"


def redirected(where: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """The command with its streams as a shell sends them."""
    command = ["bash", "-c", f'exec "$@" {where}', "bash", sys.executable, "-m", "showtell", *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("where", "arguments", "status", "error"),
    [
        ("<&-", [PHOTO], 0, ""),
        ("<&- 2>&-", [PHOTO, "absent.jpg"], 1, ""),
        ("2>/dev/full", [PHOTO, "absent.jpg"], 1, ""),
        (">&-", [PHOTO], 2, "showtell: standard output: cannot be written (Bad file descriptor)\n"),
        (">/dev/full", [PHOTO], 2, "showtell: standard output: cannot be written (No space left on device)\n"),
        ("<&-", ["-"], 2, "showtell: standard input: cannot be read (Bad file descriptor)\n"),
    ],
)
def test_closed_and_full_streams_are_errors_only_where_they_are_needed(
    where: str, arguments: list[str | Path], status: int, error: str
) -> None:
    done = redirected(where, "caption", *arguments)
    assert (done.returncode, done.stderr.decode()) == (status, error)
    if status < 2:
        assert " cat " in done.stdout.decode()


@pytest.mark.parametrize("where", ["<&- >&- 2>&-", ">/dev/full"])
def test_captions_reach_their_file_whatever_the_streams_are(where: str, tmp_path: Path) -> None:
    done = redirected(where, "caption", PHOTO, "--output", tmp_path / "captions.txt")
    assert done.returncode == 0
    assert (tmp_path / "captions.txt").read_text().startswith(f"{PHOTO}\t")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["caption", "--help"]])
def test_what_is_printed_is_no_success_where_it_is_lost(arguments: list[str]) -> None:
    done = redirected(">/dev/full", *arguments)
    assert done.returncode == 2
    assert done.stderr == b"showtell: standard output: cannot be written (No space left on device)\n"


def test_a_reader_that_leaves_ends_the_command_without_a_word() -> None:
    command = [sys.executable, "-m", "showtell", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


def test_a_file_on_a_full_disk_is_named() -> None:
    stream = open_text(Path("/dev/full"), "w")
    JsonlSink(io.StringIO()).write(Record("a", "ok"))
    with pytest.raises(OSError, match=r"^/dev/full: cannot be written \(No space left on device\)$"):
        JsonlSink(stream).write(Record("a", "ok"))
    with pytest.raises(OSError, match="/dev/full"):
        stream.close()


RECORD = Record("日本 é 🐕.jpg", "ok", (Caption("a dog", -1.0, ("a", "dog")),))


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8", "cp932"])
def test_any_encoding_has_any_name(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, ESCAPED)
    TextSink(stream, single=False).write(RECORD)
    JsonlSink(stream).write(RECORD)
    text, line = raw.getvalue().decode(encoding).splitlines()
    assert json.loads(line)["path"] == RECORD.path  # escapes of JSON and no others
    assert text.encode(encoding).endswith(b".jpg\ta dog")
    if encoding == "utf-8":
        assert text == f"{RECORD.path}\ta dog"
    if encoding == "cp1252":
        assert text == "\\u65e5\\u672c é \\U0001f415.jpg\ta dog"


def test_bytes_that_are_no_text_go_out_as_they_came_in() -> None:
    for encoding in ("utf-8", "cp1252"):
        assert os.fsdecode(b"caf\xe9.jpg").encode(encoding, ESCAPED) == b"caf\xe9.jpg"
    assert "\ud83d.jpg".encode("utf-8", ESCAPED) == b"\\ud83d.jpg"  # half a pair, as Windows allows in names
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", ESCAPED)
    with pytest.raises(LookupError):
        codecs.lookup_error("showtell-unknown")


def test_the_command_writes_names_that_its_streams_lack(tmp_path: Path) -> None:
    names = ["日本.jpg", "日本 absent.jpg"]
    (tmp_path / names[0]).write_bytes(PHOTO.read_bytes())
    output = tmp_path / "captions.txt"
    done = run(
        "caption", *names, "--output", output, "--format", "text", cwd=tmp_path, environment={"PYTHONIOENCODING": "cp1252"}
    )
    assert done.returncode == 1
    assert done.stdout.startswith(rb"\u65e5\u672c.jpg" + b"\t")
    assert done.stderr.startswith(rb"showtell: \u65e5\u672c absent.jpg: no such file [not-found]")
    assert output.read_text(encoding="utf-8").startswith("日本.jpg\t")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("new\nline.jpg", r"new\nline.jpg"),
        ("a\ttab\r.jpg", r"a\ttab\r.jpg"),
        ("\x1b[31mred\x1b]0;title\x07.jpg", r"\x1b[31mred\x1b]0;title\x07.jpg"),
        ("\x9b2J\x7f.jpg", r"\x9b2J\x7f.jpg"),
        ("line\u2028end\u2029\x85.jpg", r"line\u2028end\u2029\x85.jpg"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("C:\\photos\\日本 é 👩\u200d🚀.jpg", "C:\\photos\\日本 é 👩\u200d🚀.jpg"),  # what joins an emoji stays
        (os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"caf\xe9.jpg")),
    ],
)
def test_names_neither_break_lines_nor_steer_a_terminal(name: str, shown: str) -> None:
    assert one_line(name) == shown
    stream = io.StringIO()
    TextSink(stream, single=False).write(Record(name, "ok", RECORD.captions))
    assert stream.getvalue() == f"{shown}\ta dog\n"
    assert json.loads(to_line(Record(name, "ok")))["path"] == name


def test_messages_do_not_steer_a_terminal_either(tmp_path: Path, here) -> None:
    bad = f"{tmp_path}/\x1b[2J\n.jpg"
    shown = f"{tmp_path}/\\x1b[2J\\n.jpg"
    assert here("caption", bad)[::2] == (2, f"showtell: {shown}: no such file [not-found]\n")
    Path(bad).mkdir()
    status, _, errors = here("caption", bad)
    assert status == 2
    assert "\x1b" not in errors
    assert "no photos in" in errors
    assert "\x1b" not in here("caption", "--\x1b[2J")[2]


def list_of(data: bytes) -> list[str]:
    found = list(photos(["-"], io.BytesIO(data)))
    assert all(isinstance(path, str) for path in found)
    return found


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_lists_of_paths_in_any_unicode_encoding(encoding: str, end: str) -> None:
    paths = ["BMW café.jpg", "GIF89a/日本.jpg", "P6 b.jpg", " a", "x" * 600]
    assert list_of((end.join(paths) + end).encode(encoding)) == paths
    big_endian = codecs.BOM_UTF16_BE + end.join(paths).encode("utf-16-be")
    assert list_of(big_endian) == paths


def test_lists_with_null_characters_and_odd_bytes() -> None:
    assert list_of(b"BM a.jpg\0two\nlines.jpg\0caf\xe9.jpg\0") == ["BM a.jpg", "two\nlines.jpg", os.fsdecode(b"caf\xe9.jpg")]
    assert list_of(b"") == list_of(b"\n \n") == list_of(codecs.BOM_UTF8) == []
    with pytest.raises(OptionError, match="begins like UTF-16-LE text but is not"):
        list_of(codecs.BOM_UTF16_LE + b"a\0b")
    with pytest.raises(OptionError, match="standard input: is neither a photo nor a list of paths"):
        list_of(b"\x7fELF\1\1\1\0\0\0\0\0")


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_photo_on_standard_input_is_captioned_as_one(format_: str) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (10, 10, 10)).save(buffer, format_)  # a PPM whose pixels are all ends of lines
    [photo] = list(photos(["-"], io.BytesIO(buffer.getvalue())))
    assert not isinstance(photo, str)
    assert photo.read() == buffer.getvalue()
    assert photo.name == "-"


@pytest.mark.parametrize("data", [b"%PDF-1.7\n", b"8BPS\0\1", b'<?xml version="1.0"?><svg/>', b"\0\0\0\x0cjP  \r\n\x87\n"])
def test_other_pictures_on_standard_input_are_named_and_are_no_lists(data: bytes) -> None:
    [photo] = list(photos(["-"], io.BytesIO(data)))
    assert not isinstance(photo, str)


def test_photos_and_lists_come_through_pipes() -> None:
    script = f'cd "{PHOTO.parent}" && exec "$@" caption - <(cat cat.jpg) <(echo cat.jpg) < cat.jpg'
    command = ["bash", "-c", script, "bash", sys.executable, "-m", "showtell"]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    names, captions = zip(*(line.split("\t") for line in done.stdout.decode().splitlines()), strict=True)
    assert (names[0], names[2]) == ("-", "cat.jpg")
    assert names[1].startswith("/dev/fd/")
    assert len(set(captions)) == 1
