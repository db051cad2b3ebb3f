"""Sources of photos: paths, file objects, encoded bytes, PIL images and arrays."""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from showtell.arrays import Array
from showtell.errors import ImageError
from showtell.image.formats import HEAD, identify


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """An encoded photo with a name; `read` gives its bytes when its turn comes, and may raise ImageError."""

    name: str
    read: Callable[[], bytes]


PhotoSource = NamedPhoto | str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | Array

_CHUNK = 2**20
_KINDS = (
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def is_source(value: object) -> bool:
    """Whether an object is a single photo in any form, rather than several photos."""
    return isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)) or (
        value.ndim < 4 if isinstance(value, np.ndarray) else hasattr(value, "read")
    )


def name_of(source: object) -> str:
    """The name of a photo in messages and records: its path, or its kind of object."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"<{source.mode} image>")
    if isinstance(path := getattr(source, "name", None), (str, bytes)):  # an open file
        return os.fsdecode(path)
    return f"<{type(source).__name__}>"


def read_bytes(source: PhotoSource, name: str, max_bytes: int) -> tuple[bytes, str]:
    """Reads a photo's encoded bytes; returns them with the name of their format.

    Of a file that is no image only the first bytes are read, and of an image at most `max_bytes`. Raises ImageError.
    """
    if isinstance(source, NamedPhoto):
        data = source.read()
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        return _read_path(source, name, max_bytes)
    elif hasattr(source, "read"):
        return _read_stream(source, name, max_bytes)
    else:
        raise ImageError(
            "not-an-image", f"{name}: cannot be read as a photo; give a path, bytes, an open file, a PIL image or a numpy array"
        )
    _check_size(len(data), name, max_bytes)
    return data, identify(data[:HEAD], name)


def _read_path(path: str | os.PathLike[str], name: str, max_bytes: int) -> tuple[bytes, str]:
    try:
        if not os.fspath(path):
            raise ImageError("not-found", "the path of a photo is empty")
        status = Path(path).stat()  # before opening, which would wait for the other end of a pipe
        if stat.S_ISDIR(status.st_mode):
            if not os.access(path, os.R_OK | os.X_OK):
                raise ImageError("unreadable", f"{name}: a folder that cannot be listed; check its permissions")
            raise ImageError("not-an-image", f"{name}: is a folder, not a photo")
        for is_kind, kind in _KINDS:
            if is_kind(status.st_mode):
                raise ImageError("not-an-image", f"{name}: is {kind}, not a file")
        _check_size(status.st_size, name, max_bytes)
        with open(path, "rb") as file:
            return _read_stream(file, name, max_bytes)
    except ImageError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        what = "a link to a file that does not exist" if Path(path).is_symlink() else "no such file"
        raise ImageError("not-found", f"{name}: {what}") from None
    except ValueError:  # a null character
        raise ImageError("not-found", f"{name!r}: no file can have this path") from None
    except OSError as error:
        reason = "a link that leads back to itself" if error.errno == errno.ELOOP else error.strerror or str(error)
        raise ImageError("unreadable", f"{name}: {reason}") from None


def _read_stream(file: Any, name: str, max_bytes: int) -> tuple[bytes, str]:
    try:
        head = file.read(HEAD)
        if not isinstance(head, bytes):
            raise ImageError("unreadable", f"{name}: opened as text; open it with mode 'rb'")
        if not head:
            _check_size(0, name, max_bytes)
        format_ = identify(head, name)
        parts, size = [head], len(head)
        # A read may return less than requested, and allocates memory for all requested bytes.
        while size <= max_bytes and (part := file.read(min(_CHUNK, max_bytes + 1 - size))):
            parts.append(part)
            size += len(part)
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: the file was closed
        raise ImageError("unreadable", f"{name}: {getattr(error, 'strerror', None) or error}") from None
    _check_size(size, name, max_bytes)
    return b"".join(parts), format_


def _check_size(size: int, name: str, max_bytes: int) -> None:
    if not size:
        raise ImageError("empty", f"{name}: the file is empty")
    if size > max_bytes:
        raise ImageError("too-large", f"{name}: {size:,} bytes; at most {max_bytes:,} are read")


def from_array(array: Array, name: str) -> Image.Image:
    """An 8-bit image from an array of one of the forms in `read_rgb`. Raises ImageError."""
    allowed = "it must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "; channels come last: transpose it" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError("not-an-image", f"{name}: array of shape {array.shape}; {allowed}{hint}")
    if 0 in array.shape:
        raise ImageError("empty", f"{name}: array of shape {array.shape} has no pixels")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype == np.uint16:
        array = scale_16_bit(array)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ImageError("not-an-image", f"{name}: float array outside 0..1; scale it, or pass uint8 0..255")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(
            "not-an-image", f"{name}: array of {array.dtype}; it must be bool, uint8 0..255, uint16 0..65535 or float 0..1"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def scale_16_bit(values: Array) -> Array:
    """uint8 from values 0..65535, rounded: 65535 is 255."""
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
