"""From what a person names to photos: files, folders (recursive), and `-` for standard input."""

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

_BITMAP = re.compile(rb"P[1-6f]\s+(#[^\n]*\s+)*\d+\s+\d+\s")  # how a PPM begins, which may be all text
STANDARD_INPUT = ("-", "/dev/stdin")
_MARKS = (  # which stand before a text, the longer ones first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def photo_paths(arguments: Sequence[str], stdin: BinaryIO, skipped: Counter[str] | None = None) -> list[str | BinaryIO]:
    """Photos, in the order named and sorted within a folder: their paths, and open files for what comes through a pipe.

    What is named itself is taken whatever its name and kind, so that it is reported if it cannot be read. A folder gives the
    photos below it, by suffix and else by their first bytes; links to folders are followed, each folder once. Other files are
    counted in `skipped`, by kind. A folder that may not be listed stands for itself, so that it is reported too.

    Standard input, and what a shell gives for `<(...)`, is a photo or a list of paths. Raises OptionError where it cannot be
    read.
    """
    skipped = Counter() if skipped is None else skipped
    found: list[str | BinaryIO] = []
    for argument in arguments:
        if argument in STANDARD_INPUT:
            found.extend(_piped(stdin, "-"))
        elif _is_substituted(argument):
            with open(argument, "rb") as pipe:
                found.extend(_piped(pipe, argument))
        elif os.path.isdir(argument):  # noqa: PTH112  # Path("") is the current folder, and Path.is_dir may raise
            found.extend(_photos_below(Path(argument), skipped))
        else:
            found.append(argument)
    return found


def _is_substituted(argument: str) -> bool:
    """Whether it is a pipe that the shell has opened for us; to open any other may be to wait for ever."""
    return argument.startswith(("/dev/fd/", "/proc/self/fd/")) and Path(argument).is_fifo()


def _piped(stream: BinaryIO, name: str) -> Sequence[str | BinaryIO]:
    try:
        data = stream.read()
    except OSError as error:
        raise OptionError(f"{'standard input' if name == '-' else name}: cannot be read ({error.strerror})") from None
    if not _is_photo_data(data[:HEAD]):
        return _listed(data, name)
    photo = io.BytesIO(data)
    photo.name = name  # what records and messages call it
    return [photo]


def _is_photo_data(head: bytes) -> bool:
    """Whether data that begins with `head` is a photo, or would be one in another format, and no list of paths."""
    try:
        kind = identify(head, "")
    except ImageError as error:
        return error.code == "unsupported-format" and (head.startswith((b"<", b"%")) or not _is_text(head))
    if kind == "BMP":  # so may paths begin
        return head[6:10] == bytes(4)
    return not _is_text(head) or (kind == "PPM" and bool(_BITMAP.match(head)))


def _is_text(head: bytes) -> bool:
    return not any(byte < 32 and byte not in b"\t\n\r" for byte in head)


def _listed(data: bytes, name: str) -> list[str]:
    """One path a line, or, with null characters between them, as `find -print0` writes paths that may hold newlines."""
    mark, encoding = next(((mark, encoding) for mark, encoding in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    if not mark:  # characters of two bytes, as `cmd /u` writes them, of which one is mostly zero
        first, second = (data[start:HEAD:2].count(0) > min(len(data), HEAD) / 4 for start in (0, 1))
        encoding = {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get((first, second), encoding)
    if encoding == "utf-8" and b"\0\0" in data:
        raise OptionError(f"{'standard input' if name == '-' else name}: is neither a photo nor a list of paths")
    try:
        text = os.fsdecode(data[len(mark) :]) if encoding == "utf-8" else data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        raise OptionError(f"{name}: begins as {encoding.upper()} text and is none; give paths in UTF-8") from None
    return [line for line in (text.split("\0") if "\0" in text else re.split(r"\r\n|[\r\n]", text)) if line.strip()]


def _photos_below(folder: Path, skipped: Counter[str]) -> Iterator[str]:
    for name in walk(folder, skipped):
        path = folder / name
        if path.is_dir() or (kind := kind_of_file(path)) is None:
            yield str(path)
        else:
            count_skipped(name, kind, skipped)
