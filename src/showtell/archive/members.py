"""Photos within archives, opened by the thread that decodes them and never unpacked to disk."""

import io
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from showtell.errors import DataError, ImageCode, ImageError, MissingExtraError
from showtell.image import ImageSettings, NamedPhoto
from showtell.io import remote

_MOST_BYTES = ImageSettings().max_bytes + 1  # one more than may be, so that a larger photo is refused and not cut short


def member(name: str, open_file: Callable[[], Any]) -> NamedPhoto:
    """A photo that `open_file` opens when its turn comes; `name` is its path, the archive counted as a folder."""

    def read() -> bytes:
        try:
            data: bytes = open_file().read(_MOST_BYTES)
        except ImageError:
            raise
        except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, KeyError, DataError) as error:
            raise ImageError("unreadable", f"{name}: {getattr(error, 'strerror', None) or error}") from None
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
            raise ImageError("unreadable", f"{name}: damaged in the archive ({error})") from None
        return data

    return NamedPhoto(name, read)


class RemotePhoto(NamedPhoto):
    """A photo at a URL, which is its name."""

    def __init__(self, url: str) -> None:
        super().__init__(url, partial(_fetch, url))


def _fetch(url: str) -> bytes:
    try:
        return remote.read(url, _MOST_BYTES)
    except FileNotFoundError:
        raise ImageError("not-found", f"{url}: no such file") from None
    except MissingExtraError:
        raise
    except OSError as error:
        raise ImageError("unreadable", f"{url}: {error.strerror}") from None


def unreadable(name: str, code: ImageCode, message: str) -> NamedPhoto:
    """An input that cannot be read at all, so that it gets a record too."""

    def read() -> bytes:
        raise ImageError(code, f"{name}: {message}")

    return NamedPhoto(name, read)


def of_bytes(name: str, data: bytes) -> NamedPhoto:
    """A photo whose bytes are there."""
    return NamedPhoto(name, partial(bytes, data))


def within(archive: Path, name: str) -> NamedPhoto:
    """The photo of that name within an archive, found by an index of the archive."""
    return member(name, lambda: _index(archive)(name))


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
