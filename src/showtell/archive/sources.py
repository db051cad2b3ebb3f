"""From command line arguments to photos, lazily: files, folders, tar, zip and table files, and `-` for standard input."""

import codecs
import fnmatch
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from showtell.archive.containers import is_container, photos_in
from showtell.archive.members import within
from showtell.errors import ImageError, OptionError
from showtell.image import HEAD, NamedPhoto, count_skipped, identify, kind_of_file, walk

_BITMAP = re.compile(rb"P[1-6f]\s+(#[^\n]*\s+)*\d+\s+\d+\s")  # the header of a PPM file, which may be text throughout
STANDARD_INPUT = ("-", "/dev/stdin")
_CHUNK = 2**16
_MARKS = (  # byte order marks, the longer ones first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

Source = str | NamedPhoto | BinaryIO  # a photo's path, a file within an archive, or a photo from standard input


@dataclass(slots=True)
class Selection:
    """The choice of photos, and the count of the rest.

    `include` and `exclude` are globs of paths below a folder or within an archive, or of file names where they have no slash;
    `*` matches slashes too. `image_column` names the column of paths in a table. `skipped` counts files by kind.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    image_column: str | None = None
    skipped: Counter[str] = field(default_factory=Counter)

    def takes(self, path: str) -> bool:
        """Whether the globs select a path; counts it where they do not."""
        selected = (not self.include or _matches(path, self.include)) and not _matches(path, self.exclude)
        if not selected:
            self.skipped["files that --include and --exclude leave out"] += 1
        return selected


def _matches(path: str, globs: Sequence[str]) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(path if "/" in glob else name, glob) for glob in globs)


def photos(arguments: Sequence[str], stdin: BinaryIO, selection: Selection | None = None) -> Iterator[Source]:
    """Photos, in the order of the arguments, and sorted within each folder; a photo is yielded as soon as it is listed.

    An argument that is a file is a photo whatever its name and kind, so that it is reported if it cannot be read; tar, zip,
    CSV, TSV, JSONL and Parquet files give the photos that they hold or name. A folder gives the photos below it, by suffix and
    else by their first bytes; links to folders are followed, each folder once. A folder that may not be listed stands for
    itself, so that it is reported too.

    Standard input, or a pipe such as the shell's `<(...)`, is a photo or a list of paths. Raises OptionError where it cannot be
    read, DataError for a table without a column of paths.
    """
    selection = selection or Selection()
    for argument in arguments:
        if argument in STANDARD_INPUT:
            yield from _piped(stdin, "-")
        elif _is_substituted(argument):
            with open(argument, "rb") as pipe:
                yield from _piped(pipe, argument)
        elif os.path.isdir(argument):  # noqa: PTH112  # Path("") is the current folder, and Path.is_dir may raise
            yield from _photos_below(Path(argument), selection)
        elif is_container(argument):
            yield from photos_in(Path(argument), selection)
        else:
            yield argument


def is_one_photo(arguments: Sequence[str]) -> bool:
    """Whether the arguments name one photo itself, and no folder, archive, table or standard input."""
    if len(arguments) != 1:
        return False
    [argument] = arguments
    piped = argument in STANDARD_INPUT or _is_substituted(argument)
    return not (piped or os.path.isdir(argument) or is_container(argument))  # noqa: PTH112


def reopen(name: str) -> Source:
    """The photo that a record's path names, on disk or within a tar, zip or Parquet file."""
    if not os.path.exists(name):  # noqa: PTH110
        for parent in Path(name).parents:
            if is_container(str(parent)) and parent.is_file():
                return within(parent, name)
    return name


def _is_substituted(argument: str) -> bool:
    """Whether an argument is a pipe that the shell opened; opening another pipe might wait forever."""
    return argument.startswith(("/dev/fd/", "/proc/self/fd/")) and Path(argument).is_fifo()


def _piped(stream: BinaryIO, name: str) -> Iterator[Source]:
    called = "standard input" if name == "-" else name
    try:
        head = _some(stream, HEAD)
        if not _is_photo_data(head):
            yield from _listed(head, stream, name)
            return
        photo = io.BytesIO(head + stream.read())
    except OSError as error:
        raise OptionError(f"{called}: cannot be read ({error.strerror})") from None
    photo.name = name  # for records and messages
    yield photo


def _some(stream: BinaryIO, least: int) -> bytes:
    """The stream's next bytes: a line's end or `least` bytes among them, fewer where it ends."""
    found = b""
    while len(found) < least and not (found.endswith((b"\n", b"\0")) and _is_text(found)):
        part = stream.read1(_CHUNK) if hasattr(stream, "read1") else stream.read(_CHUNK)
        if not part:
            break
        found += part
    return found


def _is_photo_data(head: bytes) -> bool:
    """Whether data that begins with `head` is a photo, even of an unsupported format, rather than a list of paths."""
    head = head[:HEAD]
    try:
        kind = identify(head, "")
    except ImageError as error:
        return error.code == "unsupported-format" and (head.startswith((b"<", b"%")) or not _is_text(head))
    if kind == "BMP":  # a path may begin with BM
        return head[6:10] == bytes(4)
    return not _is_text(head) or (kind == "PPM" and bool(_BITMAP.match(head)))


def _is_text(head: bytes) -> bool:
    return not any(byte < 32 and byte not in b"\t\n\r" for byte in head)


def _listed(head: bytes, stream: BinaryIO, name: str) -> Iterator[str]:
    """The paths in a list: one per line, or separated by null characters, as by `find -print0`.

    The head tells the encoding. Paths are yielded as they come, so that a list that another program still writes is worked on.
    """
    mark, encoding = next(((mark, encoding) for mark, encoding in _MARKS if head.startswith(mark)), (b"", "utf-8"))
    if not mark:  # UTF-16 without a mark, as `cmd /u` writes it: one byte of most characters is zero
        first, second = (head[start:HEAD:2].count(0) > min(len(head), HEAD) / 4 for start in (0, 1))
        encoding = {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get((first, second), encoding)
    if encoding == "utf-8" and b"\0\0" in head:
        raise OptionError(f"{'standard input' if name == '-' else name}: is neither a photo nor a list of paths")
    errors = "surrogateescape" if encoding == "utf-8" else "strict"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    end, rest, part = None, "", head[len(mark) :]
    while True:
        try:
            rest += decoder.decode(part, final=not part)
        except UnicodeDecodeError:
            raise OptionError(f"{name}: begins like {encoding.upper()} text but is not; give paths in UTF-8") from None
        if end is None and re.search(r"[\0\r\n]", rest):
            end = re.compile("\0") if "\0" in rest else re.compile(r"\r\n|[\r\n]")
        if end:
            whole = rest if not part or not rest.endswith("\r") else rest[:-1]  # the second half of \r\n may follow
            *lines, last = end.split(whole)
            yield from (line for line in lines if line.strip())
            rest = last + rest[len(whole) :]
        if not part:
            break
        part = stream.read1(_CHUNK) if hasattr(stream, "read1") else stream.read(_CHUNK)
    if rest.strip():
        yield rest


def _photos_below(folder: Path, selection: Selection) -> Iterator[str]:
    for name in walk(folder, selection.skipped):
        path = folder / name
        kind = kind_of_file(path)
        if kind is not None and not path.is_dir():
            count_skipped(name, kind, selection.skipped)
        elif selection.takes(name):
            yield str(path)
