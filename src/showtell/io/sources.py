"""From what a person names to photo paths: files, folders (recursive) and `-` for a list on standard input."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from showtell.image import SUFFIXES


def photo_paths(arguments: Sequence[str], stdin: BinaryIO) -> list[str]:
    """Paths of the photos, in the order named and sorted within a folder.

    A file is taken whatever its name, so that a wrong one is reported when it is read; a folder gives the files below it whose
    suffix is a photo's, hidden ones left out. Folders that are symbolic links are not followed, so that loops end.
    """
    found: list[str] = []
    for argument in arguments:
        if argument == "-":
            found.extend(os.fsdecode(line) for line in _lines(stdin))
        elif Path(argument).is_dir():
            found.extend(_walk(argument))
        else:
            found.append(argument)
    return found


def _lines(stdin: BinaryIO) -> Iterable[bytes]:
    return (line for line in stdin.read().splitlines() if line.strip())


def _walk(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield str(Path(root, name))
