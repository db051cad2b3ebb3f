"""Finds the photos that a user names: files, folders (recursive), and `-` for standard input."""

import codecs
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from showtell.errors import ImageError, OptionError
from showtell.image import HEAD, count_skipped, identify, kind_of_file, walk

_BITMAP = re.compile(rb"P[1-6f]\s+(#[^\n]*\s+)*\d+\s+\d+\s")  # the header of a PPM file, which may be text throughout
STANDARD_INPUT = ("-", "/dev/stdin")
_MARKS = (  # byte order marks, the longer ones first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def photo_paths(arguments: Sequence[str], stdin: BinaryIO, skipped: Counter[str] | None = None) -> list[str | BinaryIO]:
    """The paths of photos, in the order named and sorted within a folder; open files for photos that come through a pipe.

    A named file is taken whatever its kind, so that it is reported if it cannot be read. Of a folder, the photos below it are
    taken, by suffix or by their first bytes; links to folders are followed, each folder once. Other files are counted in
    `skipped`, by kind. A folder that cannot be listed is itself one of the paths, so that it is reported too.

    Standard input, and the shell's `<(...)`, is a photo or a list of paths. Raises OptionError where it cannot be read.
    """
    skipped = Counter() if skipped is None else skipped
    photos: list[str | BinaryIO] = []
    for argument in arguments:
        if argument in STANDARD_INPUT:
            photos.extend(_piped(stdin, "-"))
        elif _is_substituted(argument):
            with open(argument, "rb") as pipe:
                photos.extend(_piped(pipe, argument))
        elif os.path.isdir(argument):  # noqa: PTH112  # Path("") is the current folder, and Path.is_dir may raise
            photos.extend(_photos_below(Path(argument), skipped))
        else:
            photos.append(argument)
    return photos


def _is_substituted(argument: str) -> bool:
    """Whether an argument is a pipe that the shell opened; opening another pipe might wait forever."""
    return argument.startswith(("/dev/fd/", "/proc/self/fd/")) and Path(argument).is_fifo()


def _piped(stream: BinaryIO, name: str) -> Sequence[str | BinaryIO]:
    try:
        data = stream.read()
    except OSError as error:
        raise OptionError(f"{'standard input' if name == '-' else name}: cannot be read ({error.strerror})") from None
    if not _is_photo_data(data[:HEAD]):
        return _listed(data, name)
    photo = io.BytesIO(data)
    photo.name = name  # for records and messages
    return [photo]


def _is_photo_data(head: bytes) -> bool:
    """Whether data that begins with `head` is a photo, even of an unsupported format, rather than a list of paths."""
    try:
        kind = identify(head, "")
    except ImageError as error:
        return error.code == "unsupported-format" and (head.startswith((b"<", b"%")) or not _is_text(head))
    if kind == "BMP":  # a path may begin with BM
        return head[6:10] == bytes(4)
    return not _is_text(head) or (kind == "PPM" and bool(_BITMAP.match(head)))


def _is_text(head: bytes) -> bool:
    return not any(byte < 32 and byte not in b"\t\n\r" for byte in head)


def _listed(data: bytes, name: str) -> list[str]:
    """The paths in a list: one per line, or separated by null characters, as by `find -print0`."""
    mark, encoding = next(((mark, encoding) for mark, encoding in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    if not mark:  # UTF-16 without a mark, as `cmd /u` writes it: one byte of most characters is zero
        first, second = (data[start:HEAD:2].count(0) > min(len(data), HEAD) / 4 for start in (0, 1))
        encoding = {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get((first, second), encoding)
    if encoding == "utf-8" and b"\0\0" in data:
        raise OptionError(f"{'standard input' if name == '-' else name}: is neither a photo nor a list of paths")
    try:
        text = os.fsdecode(data[len(mark) :]) if encoding == "utf-8" else data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        raise OptionError(f"{name}: begins like {encoding.upper()} text but is not; give paths in UTF-8") from None
    return [line for line in (text.split("\0") if "\0" in text else re.split(r"\r\n|[\r\n]", text)) if line.strip()]


def _photos_below(folder: Path, skipped: Counter[str]) -> Iterator[str]:
    for name in walk(folder, skipped):
        path = folder / name
        if path.is_dir() or (kind := kind_of_file(path)) is None:
            yield str(path)
        else:
            count_skipped(name, kind, skipped)
