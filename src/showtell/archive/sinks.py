"""Outputs of records: text for people; JSONL, CSV, Parquet, COCO's and kohya's JSON, SQLite and a gallery for programs.

A sink takes one record at a time. `close` completes its file, whatever ended the run, so that the records until then are kept.
Formats that cannot be cut short anywhere (Parquet, JSON) are written aside and renamed when they are complete.
"""

import csv
import json
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TextIO

from showtell.errors import MissingExtraError, OutputError
from showtell.files import json_text, replacing, try_place
from showtell.io.streams import one_line, open_text
from showtell.text import as_sentence
from showtell.types import Record

_GROUP = 1000  # records of one Parquet row group
COLUMNS = (
    "path", "status", "caption", "score", "confidence", "in_domain", "source", "labels", "captions", "width", "height", "model",
    "error_code", "error_message",
)  # fmt: skip


class Sink(Protocol):
    """What takes records."""

    def write(self, record: Record) -> None:
        """Takes one record. Raises OutputError."""

    def close(self) -> None:
        """Completes the output. Raises OutputError."""


class TextSink:
    """Writes a line for each caption: the caption alone for a single photo, `path<TAB>caption` for several.

    Labels, where the record has some, follow behind a tab.
    A tab or a line end within a path is written as an escape, such as \\n.
    """

    def __init__(self, stream: TextIO, *, single: bool) -> None:
        self._stream = stream
        self._single = single

    def write(self, record: Record) -> None:
        """Writes the record's captions; nothing for an error, which is reported on standard error."""
        likely = ", ".join(f"{label.name} {label.probability:.0%}" for label in record.labels or ())
        for caption in record.captions:
            line = "\t".join([caption.text, *([likely] if likely else [])])
            self._stream.write(f"{line}\n" if self._single else f"{one_line(record.path)}\t{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """Flushes the stream; whoever opened it closes it."""
        self._stream.flush()


class JsonlSink:
    """Writes each record as a line of JSON, errors included."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: Record) -> None:
        """Writes the record as one line."""
        self._stream.write(to_line(record, getattr(self._stream, "encoding", None)) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Flushes the stream; whoever opened it closes it."""
        self._stream.flush()


class CsvSink:
    """Writes a header and one row a record; the columns `captions` and `labels` hold JSON lists."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rows = csv.writer(stream, lineterminator="\n")
        self._rows.writerow(COLUMNS)

    def write(self, record: Record) -> None:
        """Writes the record as one row."""
        row = to_row(record)
        self._rows.writerow(
            [json.dumps(row[name], ensure_ascii=False) if isinstance(row[name], list) else row[name] for name in COLUMNS]
        )
        self._stream.flush()

    def close(self) -> None:
        """Flushes the stream; whoever opened it closes it."""
        self._stream.flush()


class ParquetSink:
    """Writes a table with one row a record, in row groups of 1,000; `captions` and `labels` are lists of strings."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ModuleNotFoundError:
            raise MissingExtraError("parquet", f"{path}: writing Parquet") from None
        kinds = {name: pyarrow.float64() for name in ("score", "confidence", "in_domain")}
        kinds |= {"width": pyarrow.int32(), "height": pyarrow.int32()}
        kinds["captions"] = kinds["labels"] = pyarrow.list_(pyarrow.string())
        self._schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
        self._stack = ExitStack()
        temporary = self._stack.enter_context(replacing(path))
        self._file = self._stack.enter_context(parquet.ParquetWriter(temporary, self._schema))
        self._rows: list[dict[str, Any]] = []

    def write(self, record: Record) -> None:
        """Takes the record, and writes every 1,000."""
        self._rows.append({name: plain(value) for name, value in to_row(record).items()})
        if len(self._rows) == _GROUP:
            self._flush()

    def close(self) -> None:
        """Writes the rest and the footer, and renames the file."""
        if self._rows:
            self._flush()
        self._stack.close()

    def _flush(self) -> None:
        import pyarrow

        self._file.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
        self._rows.clear()


class _JsonSink:
    """Writes one JSON list or object, a line for each captioned photo, and renames the file when it is complete."""

    def __init__(self, path: Path, brackets: str) -> None:
        self._stack = ExitStack()
        temporary = self._stack.enter_context(replacing(path))
        self._file = self._stack.enter_context(open(temporary, "w", encoding="utf-8"))  # noqa: SIM115
        self._brackets, self._mark = brackets, brackets[0]

    def write(self, record: Record) -> None:
        """Writes the best caption of a photo that was read."""
        if record.caption is not None:
            self._file.write(f"{self._mark}\n{self.entry(record)}")
            self._mark = ","

    def entry(self, record: Record) -> str:
        """The JSON text of a captioned photo."""
        raise NotImplementedError

    def close(self) -> None:
        """Completes the value, and renames the file."""
        self._file.write(f"\n{self._brackets[1]}\n" if self._mark == "," else f"{self._brackets}\n")
        self._stack.close()


class CocoSink(_JsonSink):
    """COCO's results format: a JSON list of `{"image_id", "caption"}`, one entry for each captioned photo.

    The id is the number that ends the file's name, as in COCO_val2014_000000391895.jpg, or else the name without its suffix.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "[]")

    def entry(self, record: Record) -> str:
        """See _JsonSink."""
        stem = Path(record.path).stem
        number = re.search(r"(?:^|\D)(\d+)$", stem)
        return json_text({"image_id": int(number[1]) if number else stem, "caption": record.caption})


class KohyaSink(_JsonSink):
    """The metadata file of kohya's trainers, such as meta_cap.json: a JSON object of `{"caption"}` by the photo's whole path.

    `before` and `after`, such as a trigger word, are put around each caption.
    """

    def __init__(self, path: Path, before: str = "", after: str = "") -> None:
        super().__init__(path, "{}")
        self._before, self._after = before, after

    def entry(self, record: Record) -> str:
        """See _JsonSink."""
        name = os.path.abspath(record.path) if os.path.lexists(record.path) else record.path  # noqa: PTH100  # links stay
        return f"{json_text(name)}: {json_text({'caption': f'{self._before}{record.caption}{self._after}'})}"


class _FileSink:
    """A text sink that owns its file."""

    def __init__(self, stream: TextIO, make: Callable[[TextIO], Sink]) -> None:
        self._stream, self._sink = stream, make(stream)

    def write(self, record: Record) -> None:
        self._sink.write(record)

    def close(self) -> None:
        self._stream.close()


def _gallery(path: Path) -> Sink:
    from showtell.archive.gallery import GallerySink

    return GallerySink(path)


def _sqlite(path: Path) -> Sink:
    from showtell.archive.database import SqliteSink

    return SqliteSink(path)


_STREAMED: dict[str, Callable[[TextIO], Sink]] = {
    ".txt": lambda stream: TextSink(stream, single=False),
    ".tsv": lambda stream: TextSink(stream, single=False),
    ".jsonl": JsonlSink,
    ".csv": CsvSink,
}
_WHOLE: dict[str, Callable[[Path], Sink]] = {
    ".parquet": ParquetSink,
    ".json": CocoSink,
    ".sqlite": _sqlite,
    ".db": _sqlite,
    ".html": _gallery,
}
SUFFIXES = (*_STREAMED, *_WHOLE)


def check_place(path: Path, *, overwrite: bool) -> None:
    """Finds out before the work whether `open_sink` will be able to write. Raises OutputError."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: the suffix says the format and must be one of {', '.join(SUFFIXES)}")
    if not overwrite and os.path.lexists(path):
        raise OutputError(f"{path}: already exists; give another file or --overwrite")
    try_place(path)


def is_kohya(path: Path) -> bool:
    """Whether a file is kohya's metadata by its name, as meta_cap.json and meta_lat.json."""
    return path.suffix.lower() == ".json" and path.name.lower().startswith("meta_")


def open_sink(path: Path, *, overwrite: bool, before: str = "", after: str = "") -> Sink:
    """A sink that writes to a new file of the format that its name says. Raises OutputError.

    `before` and `after` are put around captions of kohya's metadata.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise OutputError(f"{path}: the suffix says the format and must be one of {', '.join(SUFFIXES)}")
    try:
        if suffix in _STREAMED:
            return _FileSink(open_text(path, "w" if overwrite else "x"), _STREAMED[suffix])
    except FileExistsError:
        pass
    except OSError as error:
        raise OutputError.of(path, error) from None
    else:
        if overwrite or not os.path.lexists(path):
            if is_kohya(path):
                return KohyaSink(path, before, after)
            return _WHOLE[suffix](path)
    raise OutputError(f"{path}: already exists; give another file or --overwrite")


def to_line(record: Record, encoding: str | None = None) -> str:
    """The record as one line of JSON, with escapes for characters that `encoding` lacks (UTF-8 by default)."""
    return json_text(record.to_json(), encoding=encoding or "utf-8")


def to_row(record: Record) -> dict[str, Any]:
    """The record as the cells of a table's row, by column."""
    best = record.captions[0] if record.captions else None
    return {
        "path": record.path,
        "status": record.status,
        "caption": best and best.text,
        "score": best and round(best.score, 6),
        "confidence": None if record.confidence is None else round(record.confidence, 4),
        "in_domain": None if record.in_domain is None else round(record.in_domain, 4),
        "source": record.source,
        "labels": None if record.labels is None else [label.name for label in record.labels],
        "captions": [caption.text for caption in record.captions],
        "width": record.width,
        "height": record.height,
        "model": record.model,
        "error_code": record.error_code,
        "error_message": record.error_message,
    }


def plain(value: Any) -> Any:
    """A value in UTF-8; bytes of a path that are not UTF-8 become escapes such as \\xe9."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if not value.isascii() else value
    return value


def sentences(record: Record) -> Record:
    """The record with its captions as sentences, with capital letter and full stop."""
    return replace(record, captions=tuple(replace(c, text=as_sentence(c.text, cut=c.cut)) for c in record.captions))
