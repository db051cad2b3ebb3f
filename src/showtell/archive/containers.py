"""Files that hold or name photos: tar (WebDataset's shards), zip, and tables with a column of paths.

A damaged one gives the photos before the damage and one record of its own with the error, so that nothing is lost unnoticed.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from showtell.archive import members
from showtell.archive.members import Slice, is_compressed_tar
from showtell.data import parquet, parsing
from showtell.data.layouts.table import COMMON
from showtell.errors import DataError
from showtell.image import HEAD, count_skipped, is_hidden, kind_of
from showtell.io import remote
from showtell.io.remote import is_remote, path_of

if TYPE_CHECKING:
    from showtell.archive.sources import Selection, Source

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_TEXT_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_MOST_BYTES = 2**28  # of a member of a compressed tar, which is read when it is listed


def is_container(path: str) -> bool:
    """Whether a path's suffix says that the file holds or names photos."""
    return path_of(path).lower().endswith((*_TARS, *_TEXT_TABLES, ".zip", ".parquet"))


def is_archive(path: str) -> bool:
    """Whether a path's suffix says that photos lie within the file, where nothing can be written beside them."""
    return path_of(path).lower().endswith((*_TARS, ".zip"))


def photos_in(path: str, selection: Selection) -> Iterator[Source]:
    """The photos that a tar, zip or table file holds or names, as they are listed; `selection` counts the rest by kind.

    `path` may be a URL. A tar there is read from start to end, and its photos are held until they are decoded.

    Raises DataError where a table has no column of paths, MissingExtraError for Parquet without its extra.
    """
    name = path_of(path).lower()
    if not is_remote(path) and not Path(path).is_file():
        yield path  # reported like any photo that is not there
    elif name.endswith(_TARS):
        yield from _in_tar(path, selection)
    elif name.endswith(".zip"):
        yield from _in_zip(path, selection)
    else:
        yield from _in_table(path, selection)


def _open(path: str) -> io.BufferedReader:
    return remote.open_file(path) if is_remote(path) else open(path, "rb")


def _in_tar(path: str, selection: Selection) -> Iterator[Source]:
    last = ""
    try:
        streamed = is_remote(path) or is_compressed_tar(Path(path))
        with _open(path) as whole, tarfile.open(fileobj=whole, mode="r|*" if streamed else "r:") as tar:
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # or tarfile keeps all headers
                name = last = posixpath.normpath(member.name)
                if member.isdir():
                    continue
                if not member.isfile():
                    selection.skipped["links within tar files"] += 1
                    continue
                data: bytes | None = None
                if streamed:
                    file = tar.extractfile(member)
                    data = file.read(_MOST_BYTES + 1) if file and not is_hidden(name) else b""
                head = data[:HEAD] if data is not None else None
                called, opened = f"{path}/{name}", _slice_opener(Path(path), member)
                if _takes(name, head, opened, selection):
                    yield members.of_bytes(called, data) if data is not None else members.member(called, opened)
            if not streamed and any(Slice(Path(path), tar.offset, tarfile.BLOCKSIZE).read()):
                raise tarfile.ReadError("no header of a member where one must be")  # which tarfile takes for the end
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        yield members.unreadable(path, "unreadable", f"damaged{f' behind {last}' if last else ''} ({reason}); get it again")


def _slice_opener(path: Path, member: tarfile.TarInfo) -> Callable[[], Slice]:
    return lambda: Slice(path, member.offset_data, member.size)


def _in_zip(path: str, selection: Selection) -> Iterator[Source]:
    try:
        # Members keep it open until the last of them is read.
        archive = zipfile.ZipFile(remote.open_seekable(path) if is_remote(path) else path)
        for info in archive.infolist():
            if info.is_dir():
                continue
            opened = _zip_opener(archive, info)
            if _takes(info.filename, None, opened, selection):
                yield members.member(f"{path}/{info.filename}", opened)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        yield members.unreadable(path, "unreadable", f"not a whole zip file ({error}); get it again")


def _zip_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], Any]:
    return lambda: archive.open(info)


def _takes(name: str, head: bytes | None, opened: Callable[[], Any], selection: Selection) -> bool:
    if is_hidden(name):
        selection.skipped["hidden files"] += 1
        return False

    def read_head() -> bytes:
        if head is not None:
            return head
        try:
            found: bytes = opened().read(HEAD)
        except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):  # it is reported when it is read
            return b""
        return found

    kind = kind_of(name, read_head)
    if kind is not None:
        count_skipped(name, kind, selection.skipped)
        return False
    return selection.takes(name)


def _in_table(path: str, selection: Selection) -> Iterator[Source]:
    column: str | None = None
    place = ""
    try:
        for number, (place, row) in enumerate(_rows(path)):
            if column is None or path_of(path).lower().endswith((".jsonl", ".ndjson")):
                column = _column(path, row, selection.image_column)
            value = row.get(column)
            if (data := parquet.photo(value)) is not None:
                yield members.of_bytes(f"{path}/{parquet.photo_name(value, number)}", data)
            elif isinstance(value, str) and value.strip():
                if selection.takes(value):
                    yield _beside(path, value)
            else:
                yield members.unreadable(place, "not-found", f"the column {column} holds {value!r}, which is no path")
    except (DataError, OSError, csv.Error, UnicodeDecodeError) as error:
        if not place or column is None:
            raise error if isinstance(error, DataError) else DataError(f"{path}: not readable ({error})") from None
        yield members.unreadable(path, "unreadable", f"damaged behind {place} ({error})")


def _column(path: str, row: Mapping[str, Any], chosen: str | None) -> str:
    column = chosen or next((name for common in COMMON["image"] for name in row if name.lower() == common), None)
    if column is None:
        raise DataError(f"{path}: no column of paths is recognised; the columns are {', '.join(row)}; give --image-column")
    if column not in row:
        raise DataError(f"{path}: there is no column {column!r}; the columns are {', '.join(row)}")
    return column


def _beside(table: str, value: str) -> Source:
    """A path of a table: from the table's folder or, where no file is there, from the current folder; or a URL."""
    if is_remote(value):
        return members.RemotePhoto(value)
    if is_remote(table):
        return members.RemotePhoto(f"{table.rpartition('/')[0]}/{value}")
    beside = str(Path(table).parent / value)
    return value if not os.path.exists(beside) and os.path.exists(value) else beside  # noqa: PTH110


def _rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a table with their places, one at a time."""
    suffix = PurePosixPath(path_of(path)).suffix.lower()
    if suffix == ".parquet":
        file_ = remote.open_seekable(path) if is_remote(path) else None
        yield from ((f"{path}, row {number}", row) for number, row in parquet.rows(path, file_))
        return
    with _open(path) as raw:
        encoding = parsing.encoding(raw.peek(2)[:2])
        errors = "surrogateescape" if encoding != "utf-16" else "strict"
        file = io.TextIOWrapper(raw, encoding, errors, newline="")
        if suffix in (".jsonl", ".ndjson"):
            for number, text in enumerate(file, start=1):
                if text.strip():
                    row = parsing.parse_json(Path(path), text, number)
                    if not isinstance(row, dict):
                        raise DataError(f"{path}, line {number}: {text.strip()[:60]!r} is no JSON object")
                    yield f"{path}, line {number}", row
        else:
            dialect: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffix == ".tsv" else {}
            rows = csv.reader(file, strict=True, **dialect)
            header = next(rows, None)
            for cells in rows:
                if any(cell.strip() for cell in cells):
                    yield f"{path}, line {rows.line_num}", dict(zip(header or (), cells, strict=False))
