"""The files of a data set as the layouts see them: a folder walked once, or one caption file that was named."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from showtell.data import parsing
from showtell.data.photos import PhotoStore, is_photo, walk
from showtell.errors import DataError


class Tree:
    """All files below a folder that are not hidden. Where a file is named, it alone, with the photos around it."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; give the folder of a data set or its caption file")
        self.path = path
        self.name = path.resolve().name  # of the folder or file, where it was named as `.` too
        self.single = not path.is_dir()
        # COCO keeps its captions in a folder beside those of the photos.
        self.root = path if not self.single else path.parent.parent if path.parent.name == "annotations" else path.parent
        self.files: tuple[str, ...] = (path.relative_to(self.root).as_posix(),) if self.single else tuple(walk(path))
        self._json: dict[str, Any] = {}

    def where(self, test: Callable[[PurePosixPath], bool]) -> list[str]:
        """The files that pass a test of their path."""
        return [file for file in self.files if test(PurePosixPath(file))]

    def with_suffix(self, *suffixes: str) -> list[str]:
        """The files with one of the suffixes, in lower or upper case."""
        return self.where(lambda file: file.suffix.lower() in suffixes)

    def first_line(self, file: str) -> str:
        """A text file's first line, as far as it can be told whether there is one; nothing of a file that is no text."""
        try:
            with open(self.root / file, encoding="utf-8-sig", errors="replace") as stream:
                return stream.readline(100_000)
        except OSError:
            return ""

    def json(self, file: str) -> Any:
        """The value of a JSON file, read once."""
        if file not in self._json:
            self._json[file] = parsing.read_json(self.root / file)
        return self._json[file]

    @cached_property
    def photo_files(self) -> list[str]:
        """The files with a photo's suffix."""
        return [file for file in self.files if is_photo(file)]

    def photos(self) -> PhotoStore:
        """All photos at and below the root, those in tar files too."""
        return PhotoStore(folders=[self.root], tars=[self.root / path for path in walk(self.root) if path.endswith(".tar")])
