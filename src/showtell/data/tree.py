"""The files of a data set: all files of a folder, or one caption file."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from showtell.data import parsing
from showtell.data.photos import PhotoStore
from showtell.errors import DataError
from showtell.image import kind_of_file, walk

T = TypeVar("T")


class Tree:
    """The files below a folder that are not hidden, or one caption file. The contents of a file are kept once read.

    Without `photos`, photos are not searched for, and captions alone are read.
    """

    def __init__(self, path: str | Path, *, photos: bool = True) -> None:
        path = Path(path)
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; give the folder of a data set or its caption file")
        self.path = path
        self.name = path.resolve().name  # of the folder or file, even where the path is `.`
        self.single = not path.is_dir()
        # COCO keeps its captions in a folder beside those of the photos.
        self.root = path if not self.single else path.parent.parent if path.parent.name == "annotations" else path.parent
        self.files: tuple[str, ...] = (path.relative_to(self.root).as_posix(),) if self.single else tuple(walk(path))
        self._photos = photos
        self._values: dict[tuple[str, Callable[..., Any]], Any] = {}

    def where(self, test: Callable[[PurePosixPath], bool]) -> list[str]:
        """The files whose path passes a test."""
        return [file for file in self.files if test(PurePosixPath(file))]

    def with_suffix(self, *suffixes: str) -> list[str]:
        """The files with one of the suffixes, in any case."""
        return self.where(lambda file: file.suffix.lower() in suffixes)

    def first_line(self, file: str) -> str:
        """A text file's first line that is not blank; empty where the file cannot be read."""
        try:
            with open(self.root / file, "rb") as raw:
                encoding = parsing.encoding(raw.read(2))
            with open(self.root / file, encoding=encoding, errors="replace") as stream:
                return next((line.rstrip("\n") for _ in range(100) if (line := stream.readline(100_000)).strip()), "")
        except OSError:
            return ""

    def once(self, file: str, read: Callable[[Path], T]) -> T:
        """The result of `read` on a file, computed once."""
        key = file, read
        if key not in self._values:
            self._values[key] = read(self.root / file)
        value: T = self._values[key]
        return value

    def json(self, file: str) -> Any:
        """The value of a JSON file."""
        return self.once(file, parsing.read_json)

    @cached_property
    def photo_files(self) -> list[str]:
        """The files that are photos."""
        return [file for file in self.files if kind_of_file(self.root / file) is None]

    def photos(self) -> PhotoStore:
        """All photos below the root, also those in tar files."""
        return PhotoStore([self.root] if self._photos else [])
