"""Stores of photos: folders, uncompressed tar files and Parquet files, searched by path or by file name."""

import hashlib
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from showtell.data import parquet
from showtell.data.names import Names
from showtell.errors import DataError, ImageError
from showtell.image import HEAD, count_skipped, is_hidden, kind_of, kind_of_file, walk

COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")  # cannot be read in place
_ARCHIVES = (".tar", ".parquet")  # treated as folders of photos


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a photo's bytes: the whole `file`, or `size` bytes of its `member`.

    A member begins at byte `offset` of a tar file, or is in row `offset` of the `column` of a Parquet file.
    """

    file: Path
    member: str | None = None
    offset: int = 0
    size: int = 0
    column: str | None = None

    def read(self) -> bytes:
        """All bytes; fewer where the file is cut short. Raises OSError."""
        if self.column is not None:
            return parquet.cell(self.file, self.column, self.offset)
        return self.head(self.size if self.member else -1)

    def head(self, size: int) -> bytes:
        """The first `size` bytes of a file or of a tar member. Raises OSError."""
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            return file.read(size)


def members(path: Path) -> Iterator[tuple[str, Place]]:
    """The files in an uncompressed tar file with their paths. Hidden files are left out, and links are followed.

    Raises DataError where the tar file is compressed or damaged.
    """
    places: dict[str, Place] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:  # "r:" refuses compressed files, which cannot be read in place
            for member in tar:
                name = posixpath.normpath(member.name)
                if member.isfile():
                    places[name] = Place(path, member.name, member.offset_data, member.size)
                elif member.islnk() or member.issym():  # a hard link's target is a path from the top
                    folder = posixpath.dirname(name) if member.issym() else ""
                    links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a whole uncompressed tar file ({error}); unpack or fetch it again") from None
    places |= {name: replace(places[target], member=name) for name, target in links.items() if target in places}
    yield from ((name, place) for name, place in places.items() if not is_hidden(name))


def is_photo(name: str, place: Place) -> bool:
    """Whether a member of a tar file is a photo."""
    return kind_of(name, lambda: place.head(min(HEAD, place.size))) is None


def photos_within(path: Path) -> Iterator[tuple[str, Place]]:
    """The photos in a tar or Parquet file, with their paths. Raises DataError where the file is damaged."""
    if path.suffix.lower() == ".parquet":
        for column, name, number, size in parquet.photos(path):
            yield name, Place(path, name, number, size, column)
    else:
        yield from ((name, place) for name, place in members(path) if is_photo(name, place))


class PhotoStore:
    """The photos of some folders by path. A tar file is treated as a folder: `images.tar/images/dog.jpg` is a path.

    Tar members are indexed once and read in place: nothing is unpacked, and several processes may read. `skipped` counts the
    files that are no photos, by kind.
    """

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self.skipped: Counter[str] = Counter()
        self._places: dict[str, Place] = {}
        self._names = Names()
        self._outside: dict[str, Place | None] = {}
        self._digests: dict[str, bytes] = {}
        self._renamed: dict[str, str] = {}
        self._roots = [Path(folder) for folder in folders]
        for folder in self._roots:
            tars: list[str] = []
            for path in walk(folder, self.skipped):
                kind = kind_of_file(folder / path)
                if path.lower().endswith(".tar"):
                    tars.append(path)
                elif kind is None:
                    self.add(path, Place(folder / path))
                else:
                    count_skipped(path, kind, self.skipped)
            for path in tars:
                self.add_within(path, folder / path)

    def add(self, path: str, place: Place) -> None:
        """Adds a photo, unless its path exists."""
        path = posixpath.normpath(path)
        if path not in self._places:
            self._places[path] = place
            self._names.add(path)

    def add_within(self, name: str, path: Path) -> None:
        """Adds the photos of a tar or Parquet file, below the path `name`."""
        for member, place in photos_within(path):
            self.add(f"{name}/{member}", place)

    def __len__(self) -> int:
        return len(self._places)

    def names(self) -> list[str]:
        """The paths of all photos, sorted."""
        return sorted(self._places)

    def below(self, name: str) -> str | None:
        """The path of the photo at exactly `name`, a relative or absolute path; None where it is not in the store."""
        path = posixpath.normpath(name)
        if path.startswith("/"):
            root = next((root for root in self._roots if Path(path).is_relative_to(root.absolute())), None)
            path = Path(path).relative_to(root.absolute()).as_posix() if root else path
        return path if path in self._places else None

    def find(self, name: str) -> str | None:
        """The path of the photo with this name, or None.

        A name is a path below the folder, or the end of one path alone, or a path on disk, relative to the folder or absolute.
        A file precedes a tar member of the same name. Raises DataError where the name is ambiguous.
        """
        if name in self._renamed:
            return self._renamed[name]
        name = name.replace("\\", "/") if "\\" in name and name not in self._places else name
        if (path := self.below(name)) is not None:
            return path
        paths = self._names.ending(name)
        if len(paths) > 1:
            paths = [path for path in paths if self._places[path].member is None] or paths
        if len(paths) > 1:
            raise DataError(
                f"{name}: is the name of {len(paths)} photos, {paths[0]} and {paths[1]} among them; keep one, or name the "
                "photo with its folder"
            )
        return paths[0] if paths else self._find_outside(name)

    def rename(self, names: Iterable[str]) -> dict[str, str]:
        """Matches names that no photo has with photos of similar names, which no other of the names matches.

        Names may differ in case, in the encoding of accents and spaces, and in a photo's suffix. Returns the paths of the
        names that were matched; `find` finds these names from now on.
        """
        lost: list[str] = []
        taken: set[str] = set()
        for name in dict.fromkeys(names):
            try:
                path = self.find(name)
            except DataError:  # ambiguous
                continue
            if path is None:
                lost.append(name)
            else:
                taken.add(path)
        matches = self._names.match(lost, taken)
        self._renamed |= matches
        return matches

    def near(self, name: str) -> str:
        """The end of a message about a missing photo: photos with similar names, or empty."""
        near = self._names.near(name)
        return f" (near is {' or '.join(near)})" if near else ""

    def _find_outside(self, name: str) -> str | None:
        """Finds a photo on disk outside the folders, or in a tar file outside; its path is its name."""
        if name not in self._outside:
            self._outside[name] = None
            for root in self._roots:
                path = root / name
                parents = (parent for parent in path.parents if parent.suffix.lower() in _ARCHIVES and _is_file(parent))
                archive = next(parents, None)
                if archive is not None and str(archive) not in self._outside:
                    self._outside[str(archive)] = None
                    prefix = name[: len(name) - len(path.relative_to(archive).as_posix())]
                    self._outside.update((prefix + member, place) for member, place in photos_within(archive))
                elif archive is None and _is_file(path):
                    self._outside[name] = Place(path)
        return name if self._outside[name] else None

    def place(self, name: str) -> Place | None:
        """The place of the photo with this name, or None. Raises DataError where the name is ambiguous."""
        path = self.find(name)
        return None if path is None else self._places.get(path) or self._outside.get(path)

    def size(self, name: str) -> int:
        """The photo's number of encoded bytes."""
        place = self._existing(name)
        return place.size if place.member else place.file.stat().st_size

    def read(self, name: str) -> bytes:
        """The photo's encoded bytes. Raises ImageError where it does not exist or is cut short."""
        place = self._existing(name)
        try:
            data = place.read()
        except OSError as error:
            raise ImageError("unreadable", f"{place.file}: {error.strerror or error}") from None
        if place.member and len(data) != place.size:
            raise ImageError("truncated", f"{place.file}: photo {name} is cut short")
        return data

    def digest(self, name: str) -> bytes:
        """The SHA-256 of the photo's encoded bytes, computed once. Raises what `read` raises."""
        if name not in self._digests:
            self._digests[name] = hashlib.sha256(self.read(name)).digest()
        return self._digests[name]

    def _existing(self, name: str) -> Place:
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
    except OSError:  # the name is too long: it may be a caption in the column of paths
        return False
