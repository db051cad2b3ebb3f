"""Atomic writes: files and folders are written beside the target, flushed to disk and renamed over it."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from showtell.errors import OutputError, ShowtellError

_MAX_LINKS = 40  # links that lead to links, as in Linux


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: renamed over `path` when the block succeeds, deleted when it fails.

    A link stays, and the file that it leads to is replaced. A pipe, a device or /dev/stdout is written to when the block
    ends. Raises OutputError.
    """
    with writing(path):
        target = _target(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=target.parent if target else None)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            if target:
                sync(temporary)
                temporary.chmod(_mode(target))
                temporary.replace(target)
                sync(target.parent)
            else:
                number = _descriptor(path)
                with (
                    open(temporary, "rb") as source,
                    open(path, "ab") if number is None else open(os.dup(number), "wb") as device,
                ):
                    shutil.copyfileobj(source, device)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`: flushed and renamed to `path` when the block succeeds, deleted when it fails.

    Raises OutputError where `path` already exists or cannot be written.
    """
    with writing(path):
        if path.exists():
            raise OutputError(f"{path}: already exists; give a new folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:40]}.", suffix=".partial", dir=path.parent) as temporary:
            folder = Path(temporary) / path.name
            folder.mkdir()
            yield folder
            for written in folder.rglob("*"):
                sync(written)
            sync(folder)
            folder.replace(path)
            sync(path.parent)


def try_place(path: Path, *, parents: bool = False) -> None:
    """Checks before the work that `replacing(path)` can write, by writing some bytes beside `path`.

    With `parents`, missing folders are made. Raises OutputError.
    """
    with writing(path):
        target = _target(path)
        if target is None:
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        if parents:
            target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent) as probe:
            probe.write(bytes(2**12))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns OSErrors of the block into OutputErrors that name `path`."""
    try:
        yield
    except ShowtellError:
        raise
    except OSError as error:
        raise OutputError.of(path, error) from None


def _target(path: Path) -> Path | None:
    """The file to replace, with links followed; None where `path` is a pipe, a device or an open file to write to."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if _descriptor(path) is not None or (path.exists() and not path.is_file()):
        return None
    return Path(os.path.realpath(path))


def _descriptor(path: Path) -> int | None:
    """The descriptor of the open file that `path` leads to, as /dev/stdout does; None for any other path.

    Where standard output is redirected to a file, opening that file again would overwrite the printed lines.
    """
    link, own = path, Path("/proc/self/fd").resolve()
    for _ in range(_MAX_LINKS):
        if not link.is_symlink():
            return None
        if link.parent.resolve() == own:
            return int(link.name)
        link = link.parent / link.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _mode(target: Path) -> int:
    """The permissions of the existing file, or of a new one: those of temporary files are too strict."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def sync(path: Path) -> None:
    """Flushes a file, or the list of names of a folder, to disk."""
    if path.is_dir():
        with suppress(OSError):  # Windows cannot open folders, and some network file systems cannot flush them
            _flush(path, os.O_RDONLY)
    else:
        _flush(path, os.O_RDWR)  # Windows flushes only files that are open for writing


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically. Raises OutputError."""
    with replacing(path) as temporary:
        temporary.write_text(json_text(value, indent=2) + "\n", encoding="utf-8")


def json_text(value: Any, indent: int | None = None, encoding: str = "utf-8") -> str:
    """JSON text, on one line unless indented; in ASCII where `encoding` lacks a character.

    A path that is not UTF-8 keeps its bytes as escaped surrogates.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    return text


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
