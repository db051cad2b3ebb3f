"""Reads lines, tables and JSON from text files, with errors that name the file and the place in it."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from showtell.errors import DataError

csv.field_size_limit(1 << 24)  # a caption longer than the module's 128 KiB is odd but no error


def content(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark, or of a UTF-16 file with one. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    try:
        return data.decode(encoding(data))
    except UnicodeDecodeError as error:
        # The codec counts from the end of the byte order mark.
        start = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        number = data.count(b"\n", 0, start) + 1
        column = len(data[data.rfind(b"\n", 0, start) + 1 : start].decode("utf-8", "replace")) + 1
        raise DataError(f"{line(path, number)}, column {column}: byte {start} is not UTF-8; convert the file") from None


def encoding(head: bytes) -> str:
    """The encoding of a text file that begins with `head`. Excel's "Unicode text" is UTF-16."""
    return "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def line(path: Path, number: int) -> str:
    """The name of a line in error messages."""
    return f"{path}, line {number}"


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line that is not blank, with its number. Lines end with LF or CRLF, or all with CR. Raises DataError."""
    text = content(path)
    for number, text_line in enumerate(text.split("\n" if "\n" in text else "\r"), start=1):
        if text_line.strip():
            yield number, text_line.removesuffix("\r")


def table_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, its header first, each with the number of its last line; blank rows are left out.

    In a table with tabs no cell is quoted: quotation marks are text, and each line is a row. Raises DataError.
    """
    if delimiter == "\t":
        yield from ((number, text.split("\t")) for number, text in lines(path))
        return
    rows = csv.reader(io.StringIO(content(path), newline=""), delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if any(cell.strip() for cell in row):
                yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"{line(path, rows.line_num)}: not CSV ({error})") from None


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The JSON value of each line, with its place. Raises DataError."""
    for number, text in lines(path):
        yield line(path, number), parse_json(path, text, number)


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises DataError."""
    return parse_json(path, content(path), 1)


def parse_json(path: Path, text: str, first_line: int) -> Any:
    """The value of JSON text that begins in `first_line` of `path`. Raises DataError, also for repeated keys."""
    place = line(path, first_line)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
            raise DataError(f"{place}: an object has the key {twice[:60]!r} twice; remove one")
        return entries

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"{line(path, first_line + error.lineno - 1)}, column {error.colno}"
        raise DataError(f"{place}: broken JSON ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{place}: JSON nested too deeply to be captions") from None


def get(entry: Any, key: str, place: str) -> Any:
    """The value of a key of a JSON object. Raises DataError where it is missing."""
    if not isinstance(entry, dict):
        raise DataError(f"{place}: {str(entry)[:60]!r} is no JSON object")
    if key not in entry:
        raise DataError(f"{place}: `{key}` is missing; the keys are {', '.join(entry) or 'none'}")
    return entry[key]


def text(value: Any, place: str, what: str = "caption") -> str:
    """Returns `value`, which must be a string. Raises DataError."""
    if not isinstance(value, str):
        raise DataError(f"{place}: the {what} {value!r} is of type {type(value).__name__}; it must be a string")
    try:
        value.encode("utf-8", "surrogateescape")  # paths that are not UTF-8 have such escapes
    except UnicodeEncodeError:
        raise DataError(f"{place}: the {what} {value!r} has half of a surrogate pair, which is no character") from None
    return value


def items(entry: Any, key: str, place: str) -> list[Any]:
    """The list in a key of a JSON object. Raises DataError where it is missing or no list."""
    value = get(entry, key, place)
    if not isinstance(value, list):
        raise DataError(f"{place}: `{key}` is {value!r}; it must be a list")
    return value


def identifier(value: Any, place: str) -> str:
    """An image's id as a string; it must be a whole number or a string. Raises DataError."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{place}: the image id {value!r} is of type {type(value).__name__}; ids are whole numbers or strings")
    return str(value)
