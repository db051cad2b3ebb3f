"""The photos of a data set, in folders and uncompressed tar files, found by path or by file name."""

import hashlib
import os
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from showtell.errors import DataError, ImageError
from showtell.image import SUFFIXES


@dataclass(frozen=True, slots=True)
class Place:
    """Where a photo's bytes lie: all of `file`, or `size` bytes from `offset` of it, where `member` of a tar file is stored."""

    file: Path
    member: str | None = None
    offset: int = 0
    size: int = 0

    @property
    def path(self) -> Path:
        """The photo's path, a tar file counted as a folder."""
        return self.file / self.member if self.member else self.file


def is_photo(path: str) -> bool:
    """Whether a path has a photo's suffix and is not hidden, as the twins are that macOS adds to files."""
    name = PurePosixPath(path)
    return name.suffix.lower() in SUFFIXES and not name.name.startswith(".")


def walk(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, sorted, hidden ones left out. Links to folders are followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        below = Path(root).relative_to(folder)
        yield from ((below / name).as_posix() for name in sorted(names) if not name.startswith("."))


def photos_of_tar(path: Path) -> Iterable[tuple[str, Place]]:
    """The photos in an uncompressed tar file. Raises DataError where it is compressed or damaged."""
    for name, place in members(path):
        if is_photo(name):
            yield name, place


def members(path: Path) -> Iterable[tuple[str, Place]]:
    """The files in an uncompressed tar file, by their paths in it."""
    try:
        with tarfile.open(path, "r:") as tar:  # "r:" is uncompressed only: a compressed one cannot be read in place
            for member in tar:
                if member.isfile():
                    yield member.name, Place(path, member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a whole uncompressed tar file ({error}); unpack or fetch it again") from None


class PhotoStore:
    """Photos by path below a folder; a tar file counts as a folder, so `images.tar/images/dog.jpg` is a path too.

    Tar members are indexed once and then read in place, so nothing is unpacked and any number of processes may read.
    """

    def __init__(self, folders: Iterable[Path] = (), tars: Iterable[Path] = ()) -> None:
        self._places: dict[str, Place] = {}
        self._by_file_name: dict[str, list[str]] = {}
        self._outside: dict[str, Place | None] = {}
        self._digests: dict[str, bytes] = {}
        self._roots = [Path(folder) for folder in folders]
        for folder in self._roots:
            for path in walk(folder):
                if is_photo(path):
                    self.add(path, Place(folder / path))
        for tar in tars:
            self.add_tar(tar)

    def add(self, path: str, place: Place) -> None:
        """Takes up a photo; the first of a path stays."""
        path = posixpath.normpath(path)
        if path not in self._places:
            self._places[path] = place
            self._by_file_name.setdefault(path.rsplit("/", 1)[-1], []).append(path)

    def add_tar(self, tar: Path) -> None:
        """Takes up the photos in a tar file."""
        below = next((tar.relative_to(root).as_posix() for root in self._roots if tar.is_relative_to(root)), tar.name)
        for name, place in photos_of_tar(tar):
            self.add(f"{below}/{name}", place)

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def __len__(self) -> int:
        return len(self._places)

    def names(self) -> list[str]:
        """Paths of all photos, sorted."""
        return sorted(self._places)

    def below(self, name: str) -> str | None:
        """The path of the photo at exactly `name`, from the folder or absolute, or None where that is not below the folder."""
        path = posixpath.normpath(name)
        if path.startswith("/"):
            root = next((root for root in self._roots if Path(path).is_relative_to(root.absolute())), None)
            path = Path(path).relative_to(root.absolute()).as_posix() if root else path
        return path if path in self._places else None

    def find(self, name: str) -> str | None:
        """The path of the photo that `name` means, or None.

        A name is a path below the folder, or the end of one as long as no other photo's path ends so, or a path on disk, from
        the folder or absolute. Where a photo lies both as a file and in a tar, the file is meant. Raises DataError where
        several photos are meant.
        """
        name = name.replace("\\", "/") if "\\" in name and name not in self._places else name
        if (path := self.below(name)) is not None:
            return path
        found = self._by_file_name.get(name.rsplit("/", 1)[-1], [])
        if "/" in name:
            found = [path for path in found if path.endswith("/" + name)]
        if len(found) > 1:
            found = [path for path in found if self._places[path].member is None] or found
        if len(found) > 1:
            raise DataError(
                f"{name}: is the name of {len(found)} photos, {found[0]} and {found[1]} among them; leave one, or name the "
                "photo with its folder"
            )
        return found[0] if found else self._find_outside(name)

    def _find_outside(self, name: str) -> str | None:
        """A photo on disk that lies not below the folder, or in a tar file that does not; its path is as named."""
        if name not in self._outside:
            self._outside[name] = None
            for root in self._roots:
                path = root / name
                tar = next((parent for parent in path.parents if parent.suffix.lower() == ".tar" and _is_file(parent)), None)
                if tar is not None and str(tar) not in self._outside:
                    self._outside[str(tar)] = None
                    prefix = name[: len(name) - len(path.relative_to(tar).as_posix())]
                    self._outside.update((prefix + member, place) for member, place in photos_of_tar(tar))
                elif tar is None and _is_file(path):
                    self._outside[name] = Place(path)
        return name if self._outside[name] else None

    def place(self, name: str) -> Place | None:
        """Where the photo that `name` means lies, or None."""
        path = self.find(name)
        return None if path is None else self._places.get(path) or self._outside.get(path)

    def size(self, name: str) -> int:
        """Length of the photo's file in bytes."""
        place = self._found(name)
        return place.size if place.member else place.file.stat().st_size

    def read(self, name: str) -> bytes:
        """The photo's encoded bytes. Raises ImageError where it is absent or cut short."""
        place = self._found(name)
        try:
            with open(place.file, "rb") as file:
                file.seek(place.offset)
                data = file.read(place.size if place.member else -1)
        except OSError as error:
            raise ImageError("unreadable", f"{place.file}: {error.strerror or error}") from None
        if place.member and len(data) != place.size:
            raise ImageError("truncated", f"{place.file}: photo {name} is cut short")
        return data

    def digest(self, name: str) -> bytes:
        """The SHA-256 of the photo's encoded bytes as they were when first asked for. Raises what `read` does."""
        if name not in self._digests:
            self._digests[name] = hashlib.sha256(self.read(name)).digest()
        return self._digests[name]

    def _found(self, name: str) -> Place:
        try:
            place = self.place(name)
        except DataError as error:
            raise ImageError("not-found", str(error)) from None
        if place is None:
            raise ImageError("not-found", f"{name}: no such photo in the data set")
        return place


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a caption in the column of paths is too long for a file name
        return False
