"""A SQLite database of captions with full-text search (FTS5): `showtell search DB "dog in snow"`."""

import re
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showtell.archive.beside import Existing
from showtell.archive.sinks import plain, to_line, to_row
from showtell.errors import DataError, OutputError
from showtell.types import Record

_COMMIT_RECORDS, _COMMIT_SECONDS = 1000, 5.0
_SCHEMA = """
create table if not exists photos (
    id integer primary key, path text not null, status text not null, caption text, score real, width integer, height integer,
    model text, error_code text, error_message text, record text not null
);
create index if not exists photos_by_path on photos (path);
create virtual table if not exists captions using fts5 (text, tokenize = 'porter unicode61 remove_diacritics 2');
"""
_COLUMNS = ("path", "status", "caption", "score", "width", "height", "model", "error_code", "error_message")


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that a search found."""

    path: str
    caption: str
    score: float


class SqliteSink:
    """A table `photos` with one row a record, and the full-text index `captions` over all its captions.

    With `existing` a database that exists is added to; unless it is `add`, a record replaces older ones of its photo.
    Records are committed every 1,000 or 5 seconds, so that SIGKILL leaves a whole database.
    """

    def __init__(self, path: Path, existing: Existing | None = None) -> None:
        if existing is None:
            for suffix in ("", "-wal", "-shm", "-journal"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        self._replaces = existing in ("skip", "replace")
        self._path = path
        try:
            self._connection = sqlite3.connect(path)
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise OutputError(f"{path}: cannot be written ({error})") from None
        self._pending, self._committed = 0, time.monotonic()

    def write(self, record: Record) -> None:
        """Adds the record."""
        row: dict[str, Any] = {name: plain(value) for name, value in to_row(record).items()}
        try:
            if self._replaces:
                of_photo = "select id from photos where path = ?"
                self._connection.execute(f"delete from captions where rowid in ({of_photo})", (row["path"],))
                self._connection.execute("delete from photos where path = ?", (row["path"],))
            added = self._connection.execute(
                f"insert into photos ({', '.join(_COLUMNS)}, record) values ({', '.join('?' * (len(_COLUMNS) + 1))})",
                [*(row[name] for name in _COLUMNS), to_line(record)],
            )
            if record.captions:
                text = "\n".join(caption.text for caption in record.captions)
                self._connection.execute("insert into captions (rowid, text) values (?, ?)", (added.lastrowid, text))
            self._pending += 1
            if self._pending >= _COMMIT_RECORDS or time.monotonic() - self._committed >= _COMMIT_SECONDS:
                self._connection.commit()
                self._pending, self._committed = 0, time.monotonic()
        except sqlite3.Error as error:
            raise OutputError(f"{self._path}: cannot be written ({error})") from None

    def close(self) -> None:
        """Commits the last records and closes the database."""
        try:
            with closing(self._connection):
                self._connection.commit()
        except sqlite3.Error as error:
            raise OutputError(f"{self._path}: cannot be written ({error})") from None


def search(path: Path, words: str, limit: int) -> list[Match]:
    """The photos whose captions have all of the words or, where none has, some of them; the best matches first (BM25).

    Words are stemmed: `dogs` finds `dog`. Raises DataError where the file is no such database or there are no words.
    """
    terms = re.findall(r"\w+", words)
    if not terms:
        raise DataError(f"{words!r}: no words to search for")
    quoted = [f'"{term}"' for term in terms]
    return _matches(path, " AND ".join(quoted), limit) or _matches(path, " OR ".join(quoted), limit)


def _matches(path: Path, query: str, limit: int) -> list[Match]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; `showtell caption PHOTOS --output {path}` makes it")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "select path, caption, bm25(captions) from captions join photos on photos.id = captions.rowid "
                "where captions match ? order by bm25(captions), photos.id limit ?",
                (query, limit),
            ).fetchall()
    except sqlite3.Error as error:
        raise DataError(f"{path}: not a database of captions ({error}); give one that --output wrote") from None
    return [Match(found, caption, -rank) for found, caption, rank in rows]
