"""Zip files from strangers, unpacked so that nothing lands outside the folder and nothing fills the disk."""

import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from showtell.errors import FetchError, OutputError

_LITTER = ("__MACOSX", ".DS_Store")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackLimits:
    """The largest contents that are unpacked: files, and bytes of all together."""

    files: int = 100_000
    bytes: int = 8 << 30


def unpack(
    archive: Path, folder: Path, limits: UnpackLimits | None = None, progress: Callable[[int, int], None] | None = None
) -> None:
    """Unpacks a zip file into `folder`; `progress(done, total)` counts files.

    Every name is looked at before anything is written. Raises FetchError where one is absolute or leads out of the folder,
    where a member is a link or encrypted, where there is too much, and where contents do not agree with their checksums.
    """
    limits = limits or UnpackLimits()
    try:
        with zipfile.ZipFile(archive) as opened:
            wanted = [
                (member, _safe(archive, member))
                for member in opened.infolist()
                if not member.is_dir() and not set(PurePosixPath(member.filename).parts) & set(_LITTER)
            ]
            total = sum(member.file_size for member, _ in wanted)
            if len(wanted) > limits.files or total > limits.bytes:
                raise FetchError(
                    f"{archive}: would unpack to {len(wanted):,} files and {total:,} bytes; at most {limits.files:,} and "
                    f"{limits.bytes:,} are unpacked"
                )
            for number, (member, path) in enumerate(wanted, start=1):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile gives at most the size that the member states, so the total above holds whatever the data does.
                with opened.open(member) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)
                if progress:
                    progress(number, len(wanted))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        raise FetchError(f"{archive}: not a whole zip file ({error})") from None
    except FileExistsError as error:
        raise FetchError(f"{archive}: holds {error.filename} twice") from None
    except OSError as error:
        if isinstance(error, FetchError):
            raise
        raise OutputError(f"{folder}: cannot be unpacked into ({error.strerror or error})") from None


def _safe(archive: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    path = PurePosixPath(member.filename)
    # A backslash or a colon is harmless here and a way out on Windows.
    if path.is_absolute() or ".." in path.parts or any(character in member.filename for character in "\\:\0") or not path.parts:
        raise FetchError(f"{archive}: the member {member.filename!r} would be written outside its folder; nothing was unpacked")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise FetchError(f"{archive}: the member {member.filename!r} is a link or a device; nothing was unpacked")
    return path
