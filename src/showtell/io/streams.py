"""The standard streams, whatever they are sent to: closed, full, or of an encoding that lacks a name's characters."""

import codecs
import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any, Literal, TextIO

from showtell.errors import OutputError

ESCAPED = "showtell-escaped"  # how text is encoded, as `errors` of `open`
# Marks that turn the direction of what follows, which make a terminal show a name as another.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def one_line(text: str) -> str:
    """The text with backslash escapes for what would end a line or a cell, or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        f"{c.encode('unicode_escape').decode()}" if unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in _TURNING else c
        for c in text
    )


def _keep_or_escape(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes of a path that were not to be decoded go out as they came in; characters that the encoding lacks as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts = [
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace")
        for c in error.object[error.start : error.end]
    ]
    return b"".join(parts), error.end


codecs.register_error(ESCAPED, _keep_or_escape)


class ReaderLeftError(Exception):
    """Whoever read what is written is gone, as `head` is after some lines."""


class _Output(io.FileIO):
    """A file to write. What cannot be written is an OutputError that names it, or is dropped where it has no name."""

    def __init__(self, file: str | int, mode: str, name: str | None) -> None:
        super().__init__(file, mode, closefd=isinstance(file, str))
        self._named = name

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self._named is None:
                return len(data)
            if isinstance(error, BrokenPipeError):
                raise ReaderLeftError from None
            raise OutputError.of(self._named, error) from None


def open_text(path: Path, mode: Literal["w", "x"]) -> TextIO:
    """A new text file in UTF-8; to write to it raises OutputError where the disk is full."""
    return io.TextIOWrapper(io.BufferedWriter(_Output(str(path), mode, str(path))), "utf-8", ESCAPED, newline="\n")


def open_streams() -> None:
    """Makes the three streams fit for use; for a command, which owns them.

    A closed one gets its number back, since the next file to be opened would get it otherwise. To use it is an error still,
    except that messages to a closed standard error are dropped.
    """
    for number, name, mode in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = _output(1, sys.stdout, sys.__stdout__)
    sys.stderr = _output(2, sys.stderr, sys.__stderr__)


def _output(number: int, stream: TextIO | None, original: TextIO | None) -> TextIO:
    if stream is not None and (stream is not original or stream.isatty()):  # replaced by somebody, or a terminal
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)
        return stream
    raw = _Output(number, "w", "standard output" if number == 1 else None)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding if stream else "utf-8", ESCAPED, line_buffering=number == 2)


def drop_output() -> None:
    """What standard output holds and cannot write goes nowhere, so that Python does not fail over it at its end."""
    try:
        sys.stdout.flush()
    except (OutputError, ReaderLeftError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
