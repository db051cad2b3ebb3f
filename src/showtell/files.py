"""Writing files so that a reader never meets half of one: written beside the target, flushed to disk, renamed over it."""

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

_MOST_LINKS = 40  # one after the other, as in Linux


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed over it when the block ends well and removed when it does not.

    A link stays, and what it leads to is replaced. What is no regular file, such as a pipe, a
    device or /dev/stdout, is written to when the block ends. Raises OutputError.
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


def try_place(path: Path, *, parents: bool = False) -> None:
    """Finds out before the work whether `replacing(path)` will be able to write, by writing a little beside it.

    With `parents` folders on the way are made. Raises OutputError.
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
    """Errors of the system within the block become OutputErrors that name `path`."""
    try:
        yield
    except ShowtellError:
        raise
    except OSError as error:
        raise OutputError.of(path, error) from None


def _target(path: Path) -> Path | None:
    """The file that is to be replaced, links followed; None where `path` is no regular file and is to be written to."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if _descriptor(path) is not None or (path.exists() and not path.is_file()):
        return None
    return Path(os.path.realpath(path))


def _descriptor(path: Path) -> int | None:
    """The number of the open file that `path` leads to, as /dev/stdout does; None for any other path.

    Where standard output was sent to a file, to open that once more would be to write over what is printed.
    """
    link, own = path, Path("/proc/self/fd").resolve()
    for _ in range(_MOST_LINKS):
        if not link.is_symlink():
            return None
        if link.parent.resolve() == own:
            return int(link.name)
        link = link.parent / link.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _mode(target: Path) -> int:
    """The permissions of the file that is there, or of a new one; those of temporary files are private."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def sync(path: Path) -> None:
    """Flushes a file, or a folder's list of names where the system can, to disk."""
    if path.is_dir():
        with suppress(OSError):  # Windows opens no folders, and some network file systems do not flush them
            _flush(path, os.O_RDONLY)
    else:
        _flush(path, os.O_RDWR)  # Windows flushes nothing that may only be read


def _flush(path: Path, how: int) -> None:
    handle = os.open(path, how)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically. Raises OutputError."""
    with replacing(path) as temporary:
        temporary.write_text(json_text(value, indent=2) + "\n", encoding="utf-8")


def json_text(value: Any, indent: int | None = None, encoding: str = "utf-8") -> str:
    """JSON, on one line unless indented; all in ASCII where `encoding` lacks a character.

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
