"""Writes records: text for people, JSON lines for programs."""

from dataclasses import replace
from typing import TextIO

from showtell.files import json_text
from showtell.io.streams import one_line
from showtell.text import as_sentence
from showtell.types import Record


class TextSink:
    """Writes a line for each caption: the caption alone for a single photo, `path<TAB>caption` for several.

    A tab or a line end within a path is written as an escape, such as \\n.
    """

    def __init__(self, stream: TextIO, *, single: bool) -> None:
        self._stream = stream
        self._single = single

    def write(self, record: Record) -> None:
        """Writes the record's captions; nothing for an error, which is reported on standard error."""
        for caption in record.captions:
            self._stream.write(f"{caption.text}\n" if self._single else f"{one_line(record.path)}\t{caption.text}\n")
        self._stream.flush()


class JsonlSink:
    """Writes each record as a line of JSON, errors included."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: Record) -> None:
        """Writes the record as one line."""
        self._stream.write(to_line(record, getattr(self._stream, "encoding", None)) + "\n")
        self._stream.flush()


def to_line(record: Record, encoding: str | None = None) -> str:
    """The record as one line of JSON, with escapes for characters that `encoding` lacks (UTF-8 by default)."""
    return json_text(record.to_json(), encoding=encoding or "utf-8")


def sentences(record: Record) -> Record:
    """The record with its captions as sentences, with capital letter and full stop."""
    return replace(record, captions=tuple(replace(c, text=as_sentence(c.text, cut=c.cut)) for c in record.captions))
