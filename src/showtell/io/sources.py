"""From what a person names to photo paths: files, folders (recursive) and `-` for a list on standard input."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from showtell.image import count_skipped, kind_of_file, walk


def photo_paths(arguments: Sequence[str], stdin: BinaryIO, skipped: Counter[str] | None = None) -> list[str]:
    """Paths of the photos, in the order named and sorted within a folder.

    What is named itself is taken whatever its name and kind, so that it is reported if it cannot be read. A folder gives the
    photos below it, by suffix and else by their first bytes; links to folders are followed, each folder once. Other files are
    counted in `skipped`, by kind. A folder that may not be listed stands for itself, so that it is reported too.
    """
    skipped = Counter() if skipped is None else skipped
    found: list[str] = []
    for argument in arguments:
        if argument == "-":
            found.extend(os.fsdecode(line) for line in _lines(stdin))
        elif os.path.isdir(argument):  # noqa: PTH112  # Path("") is the current folder, and Path.is_dir may raise
            found.extend(_photos_below(Path(argument), skipped))
        else:
            found.append(argument)
    return found


def _lines(stdin: BinaryIO) -> list[bytes]:
    """One path a line, or, with null characters between them, as `find -print0` writes paths that may hold newlines."""
    text = stdin.read()
    return [line for line in (text.split(b"\0") if b"\0" in text else text.splitlines()) if line.strip()]


def _photos_below(folder: Path, skipped: Counter[str]) -> Iterator[str]:
    for name in walk(folder, skipped):
        path = folder / name
        if path.is_dir() or (kind := kind_of_file(path)) is None:
            yield str(path)
        else:
            count_skipped(name, kind, skipped)
