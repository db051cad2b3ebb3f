"""Outputs that exist already and are added to: the photos that they have records of, and sinks that keep those."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from showtell.archive.beside import Existing
from showtell.archive.database import SqliteSink
from showtell.archive.sinks import Sink, plain, to_line
from showtell.errors import DataError, OutputError
from showtell.files import replacing, writing
from showtell.types import Record


class Recorded:
    """The names of photos that have a record other than an error, kept as 64-bit hashes: a million take some 60 MB."""

    def __init__(self) -> None:
        self._names: set[int] = set()

    def add(self, name: str) -> None:
        self._names.add(hash(plain(name)))

    def has(self, photo: str) -> bool:
        return hash(plain(photo)) in self._names


def open_kept(path: Path, existing: Existing) -> tuple[Sink, Recorded]:
    """A sink that adds to an output that exists, and the photos recorded there. Raises OutputError for other formats."""
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        recorded = _recorded(_records(path))
        return _KeptJsonl(path, existing), recorded
    if suffix in (".sqlite", ".db"):
        recorded = _recorded(_rows(path))
        return SqliteSink(path, existing), recorded
    raise OutputError(f"{path}: --existing adds to .jsonl and .sqlite only; give one of these, or --overwrite")


def _recorded(records: Iterator[dict[str, Any]]) -> Recorded:
    found = Recorded()
    for record in records:
        if record.get("status") in ("ok", "doubtful"):
            found.add(str(record.get("path")))
    return found


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file; a last line that was cut short is left out."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict) or "path" not in record:
                raise DataError(f"{path}, line {number}: no record of a photo; give another file, or --overwrite")
            yield record


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with closing(sqlite3.connect(path)) as connection:
            for path_, status in connection.execute("select path, status from photos"):
                yield {"path": path_, "status": status}
    except sqlite3.Error as error:
        raise DataError(f"{path}: not a database of captions ({error}); give another file, or --overwrite") from None


class _KeptJsonl:
    """Adds records to a JSONL file. An older record of a photo goes when a newer one replaces it, at the end of the run."""

    def __init__(self, path: Path, existing: Existing) -> None:
        self._path, self._existing = path, existing
        self._new = Recorded()
        self._whole = sum(len(line) for line in _whole_lines(path))
        with writing(path):
            os.truncate(path, self._whole)
            self._file = open(path, "ab")  # noqa: SIM115  # until close

    def write(self, record: Record) -> None:
        with writing(self._path):
            self._file.write((to_line(record) + "\n").encode())
            self._file.flush()
        self._new.add(record.path)

    def close(self) -> None:
        with writing(self._path):
            self._file.close()
        if self._existing == "add":
            return
        with replacing(self._path) as temporary, open(temporary, "wb") as file:
            read = 0
            for line in _whole_lines(self._path):
                old = read < self._whole
                read += len(line)
                if not (old and self._new.has(str(json.loads(line)["path"]))):
                    file.write(line)


def _whole_lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))
