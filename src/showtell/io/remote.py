"""Files on other machines, by URL: s3://, gs://, http://, https:// and whatever else fsspec opens (extra `remote`)."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from showtell.errors import MissingExtraError

_SILENCE, _WHOLE = 60.0, 600.0  # seconds that a web server may be silent, and that an answer may take
_BUFFER = 2**20


def is_remote(path: str) -> bool:
    """Whether a path is a URL, such as s3://bucket/dog.jpg."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and len(scheme) > 1 and scheme.isascii() and scheme.isalnum()


def path_of(path: str) -> str:
    """What of a path or URL ends with the file's suffix: on the web, the part before ? and #."""
    return urlsplit(path).path if _is_web(path) else path


def read(url: str, most: int) -> bytes:
    """A file's bytes, at most `most`, in one request. Raises OSError."""
    with _reasons(url):
        if _is_web(url):
            with _streamed(url) as file:
                return _read(file, most)
        system, path = _system(url)
        try:
            return bytes(system.cat_file(path, start=0, end=most))
        except Exception:
            if system.info(path)["size"] == 0:  # an empty file has no range that could be asked for
                return b""
            raise


def open_file(url: str) -> io.BufferedReader:
    """A file that is read from start to end. Raises OSError."""
    with _reasons(url):
        return io.BufferedReader(_Raw(url, _streamed(url)), _BUFFER)


def open_seekable(url: str) -> Any:
    """A file that is read in parts, where its server gives parts. Raises OSError."""
    with _reasons(url):
        system, path = _system(url)
        return system.open(path, "rb")


def is_folder(url: str) -> bool:
    """Whether a URL is a folder, or the beginning of several names; the web has files alone. Raises OSError."""
    if _is_web(url):
        return False
    with _reasons(url):
        system, path = _system(url)
        return bool(system.isdir(path))


def walk(folder: str) -> Iterator[tuple[str, str]]:
    """Path below the folder and URL of all files, sorted within each folder. Raises OSError where one cannot be listed."""
    with _reasons(folder):
        system, path = _system(folder)
    root = path.rstrip("/")
    waiting = [root]
    while waiting:
        place = waiting.pop()
        folders: list[str] = []
        files: list[str] = []
        with _reasons(place):
            for entry in system.ls(place, detail=True):
                name = entry["name"].rstrip("/")
                if name != place:  # some stores have an empty file for the folder itself
                    (folders if entry["type"] == "directory" else files).append(name)
        yield from ((name[len(root) + 1 :], system.unstrip_protocol(name)) for name in sorted(files))
        waiting.extend(sorted(folders, reverse=True))


class _Raw(io.RawIOBase):
    """A file of fsspec as a raw stream, whose errors are OSErrors."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _reasons(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _is_web(url: str) -> bool:
    return url.partition("://")[0].lower() in ("http", "https")


def _system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path there. Raises MissingExtraError, ValueError for an unknown protocol."""
    options: dict[str, Any] = {"use_listings_cache": False}  # a listing of a million names would stay in memory
    try:
        from fsspec.core import url_to_fs

        if _is_web(url):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=_WHOLE, sock_connect=_SILENCE, sock_read=_SILENCE)
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
        system, path = url_to_fs(url, **options)
    except ImportError as error:
        if url.startswith(("http", "s3", "gs", "gcs", "memory")):
            raise MissingExtraError("remote", f"{url}: reading it") from None
        raise ValueError(str(error)) from None
    return system, path


def _streamed(url: str) -> Any:
    system, path = _system(url)
    return system.open(path, "rb", block_size=0, size=1) if _is_web(url) else system.open(path, "rb")


def _read(file: Any, most: int) -> bytes:
    parts, size = [], 0
    while size < most and (part := file.read(most - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


@contextmanager
def _reasons(url: str) -> Iterator[None]:
    """Turns whatever a protocol raises into an OSError with the reason."""
    try:
        yield
    except MissingExtraError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(2, "no such file", url) from None
    except Exception as error:  # each protocol has errors of its own: aiohttp's, botocore's, ...
        reason = " ".join(str(getattr(error, "message", None) or error).split()) or type(error).__name__
        raise OSError(5, reason, url) from None
