"""From what a person names to photo paths: files, folders (recursive) and `-` for a list on standard input."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from showtell.image import HEAD, SUFFIXES, looks_readable


def photo_paths(arguments: Sequence[str], stdin: BinaryIO) -> list[str]:
    """Paths of the photos, in the order named and sorted within a folder.

    What is named itself is taken whatever its name and kind, so that it is reported if it cannot be read. A folder gives what
    lies below it: files with a photo's suffix in small or capital letters, and files without a suffix whose first bytes are a
    photo's; hidden ones are left out. Folders that are symbolic links are not followed, so that loops end. A folder that may
    not be listed stands for itself, so that it is reported too.
    """
    found: list[str] = []
    for argument in arguments:
        if argument == "-":
            found.extend(os.fsdecode(line) for line in _lines(stdin))
        elif os.path.isdir(argument):  # noqa: PTH112  # Path("") is the current folder, and Path.is_dir may raise
            found.extend(_walk(argument))
        else:
            found.append(argument)
    return found


def _lines(stdin: BinaryIO) -> list[bytes]:
    """One path a line, or, with null characters between them, as `find -print0` writes paths that may hold newlines."""
    text = stdin.read()
    return [line for line in (text.split(b"\0") if b"\0" in text else text.splitlines()) if line.strip()]


def _walk(folder: str) -> Iterator[str]:
    unlisted: list[str] = []
    for root, folders, files in os.walk(folder, onerror=lambda error: unlisted.append(error.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_photo(Path(root, name)):
                yield str(Path(root, name))
    yield from unlisted


def _is_photo(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() in SUFFIXES
    try:
        if not path.is_file():  # to open a pipe would be to wait
            return False
        with path.open("rb") as file:
            return looks_readable(file.read(HEAD))
    except OSError:
        return False
