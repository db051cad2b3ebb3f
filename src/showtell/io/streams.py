"""Robust standard streams: closed ones, full disks, and encodings that lack characters of a name."""

import codecs
import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any, Literal, TextIO

from showtell.errors import OutputError

ESCAPED = "showtell-escaped"  # the `errors` argument of `open`
# Marks that change the direction of text, so that a terminal shows a name as another.
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def one_line(text: str) -> str:
    """The text with backslash escapes for line ends, tabs and control characters, which could steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in _DIRECTION else c
        for c in text
    )


def _keep_or_escape(error: UnicodeError) -> tuple[bytes, int]:
    """Encodes surrogates of undecoded path bytes as these bytes, and other missing characters as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts = [
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace")
        for c in error.object[error.start : error.end]
    ]
    return b"".join(parts), error.end


codecs.register_error(ESCAPED, _keep_or_escape)


class ReaderLeftError(Exception):
    """The reader of standard output has ended, as `head` does after some lines. Exit status 141."""


class _Output(io.FileIO):
    """A file to write to. A failed write raises OutputError with the file's name, or is dropped without a name."""

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
    """A new text file in UTF-8. Writing to it raises OutputError where the disk is full."""
    return io.TextIOWrapper(io.BufferedWriter(_Output(str(path), mode, str(path))), "utf-8", ESCAPED, newline="\n")


def open_streams() -> None:
    """Prepares the three standard streams for a command.

    A closed stream is opened on the null device, since the next opened file would get its descriptor otherwise. Using it is
    still an error, except that messages to a closed standard error are dropped.
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
    if stream is not None and (stream is not original or stream.isatty()):  # replaced by other code, or a terminal
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)
        return stream
    raw = _Output(number, "w", "standard output" if number == 1 else None)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding if stream else "utf-8", ESCAPED, line_buffering=number == 2)


def drop_output() -> None:
    """Flushes standard output, or drops its buffer if that fails, so that Python's exit does not fail."""
    try:
        sys.stdout.flush()
    except (OutputError, ReaderLeftError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
