"""Unpacks zip files that are not trusted: no file outside the folder, and no more bytes than allowed."""

import shutil
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from showtell.errors import FetchError, OutputError
from showtell.progress import Progress, silent

_IGNORED = ("__MACOSX", ".DS_Store")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackLimits:
    """The largest number of files, and of unpacked bytes, of one zip file."""

    files: int = 100_000
    bytes: int = 8 << 30


def unpack(archive: Path, folder: Path, limits: UnpackLimits | None = None, progress: Progress = silent) -> None:
    """Unpacks a zip file into `folder`; `progress` counts files.

    All names are checked before anything is written. Raises FetchError where one is absolute or leads out of the folder,
    where a member is a link or encrypted, where the limits are exceeded, and where a checksum is wrong.
    """
    limits = limits or UnpackLimits()
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [
                (member, _safe_path(archive, member))
                for member in opened.infolist()
                if not member.is_dir() and not set(PurePosixPath(member.filename).parts) & set(_IGNORED)
            ]
            total = sum(member.file_size for member, _ in members)
            if len(members) > limits.files or total > limits.bytes:
                raise FetchError(
                    f"{archive}: would unpack to {len(members):,} files and {total:,} bytes; at most {limits.files:,} and "
                    f"{limits.bytes:,} are unpacked"
                )
            for number, (member, path) in enumerate(members, start=1):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile reads at most the size that the header states, so no data exceeds the total above.
                with opened.open(member) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)
                progress(f"unpacking {archive.name}", number, len(members))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        raise FetchError(f"{archive}: not a whole zip file ({error})") from None
    except FileExistsError as error:
        raise FetchError(f"{archive}: holds {error.filename} twice") from None
    except OSError as error:
        if isinstance(error, FetchError):
            raise
        raise OutputError(f"{folder}: cannot be unpacked into ({error.strerror or error})") from None


def _safe_path(archive: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    path = PurePosixPath(member.filename)
    # On Windows, a backslash or a colon could lead out of the folder.
    if path.is_absolute() or ".." in path.parts or any(character in member.filename for character in "\\:\0") or not path.parts:
        raise FetchError(f"{archive}: the member {member.filename!r} would be written outside its folder; nothing was unpacked")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise FetchError(f"{archive}: the member {member.filename!r} is a link or a device; nothing was unpacked")
    return path
