"""A photo within an archive: a file to read, opened by the thread that decodes it and never unpacked to disk."""

import io
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from showtell.errors import DataError, ImageCode, ImageError


class Member:
    """A file object for one photo; `name` is its path, the archive counted as a folder. Errors of reading are ImageErrors."""

    def __init__(self, name: str, open_file: Callable[[], Any]) -> None:
        self.name = name
        self._open = open_file
        self._file: Any = None

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises ImageError."""
        try:
            if self._file is None:
                self._file = self._open()
            data: bytes = self._file.read(size)
        except ImageError:
            raise
        except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, KeyError, DataError) as error:
            raise ImageError("unreadable", f"{self.name}: {getattr(error, 'strerror', None) or error}") from None
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
            raise ImageError("unreadable", f"{self.name}: damaged in the archive ({error})") from None
        return data

    @classmethod
    def unreadable(cls, name: str, code: ImageCode, message: str) -> Self:
        """An input that cannot be read at all, so that it gets a record too."""

        def fail() -> Any:
            raise ImageError(code, f"{name}: {message}")

        return cls(name, fail)

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> Self:
        return cls(name, lambda: io.BytesIO(data))

    @classmethod
    def within(cls, archive: Path, name: str) -> Self:
        """The photo of that name within an archive, found by an index of the archive."""

        def find() -> Any:
            return _index(archive)(name)

        return cls(name, find)


class Slice:
    """Bytes of an uncompressed file, read in place; nothing stays open."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._path, self._at, self._end = path, offset, offset + size

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._at
        with open(self._path, "rb") as file:
            file.seek(self._at)
            data = file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data


@lru_cache(maxsize=2)
def _index(archive: Path) -> Callable[[str], Any]:
    """Opens members by the names that records have."""
    if archive.suffix.lower() == ".zip":
        file = zipfile.ZipFile(archive)
        return lambda name: file.open(_below(archive, name))
    if archive.suffix.lower() == ".parquet":
        from showtell.data import parquet

        cells = {member: (column, number) for column, member, number, _ in parquet.photos(archive)}
        return lambda name: io.BytesIO(parquet.cell(archive, *cells[_below(archive, name)]))
    with tarfile.open(archive) as tar:
        places = {posixpath.normpath(member.name): (member.offset_data, member.size) for member in tar if member.isfile()}
    if is_compressed_tar(archive):
        return lambda name: io.BytesIO(_unpacked(archive, _below(archive, name)))
    return lambda name: Slice(archive, *places[_below(archive, name)])


def _below(archive: Path, name: str) -> str:
    return Path(name).relative_to(archive).as_posix()


def _unpacked(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        for member in tar:
            if posixpath.normpath(member.name) == name and (file := tar.extractfile(member)):
                return file.read()
    raise KeyError(name)


def is_compressed_tar(path: Path) -> bool:
    """Whether a tar file is compressed, so that its members cannot be read in place."""
    with open(path, "rb") as file:
        head = file.read(6)
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"))
