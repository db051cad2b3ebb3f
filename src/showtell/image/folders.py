"""Which files of a folder are photos: by their suffix, and by their first bytes where no suffix says what they are."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from showtell.image.formats import HEAD, looks_readable

# What suffixes say. Camera raw files begin like TIFF, so their bytes would not tell.
_KINDS = {
    "photo": ".apng .avif .bmp .gif .heic .heif .hif .jfif .jpe .jpeg .jpg .mpo .pbm .pfm .pgm .png .pnm .ppm .tif .tiff .webp",
    "camera raw": ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl"
    " .sr2 .srf .srw .x3f",
    "video": ".3gp .avi .m4v .mkv .mov .mp4 .mpeg .mpg .mts .webm .wmv",
    "text": ".aae .caption .css .csv .htm .html .js .json .jsonl .log .md .ndjson .npy .npz .parquet .pkl .py .toml .token .tsv"
    " .txt .xml .xmp .yaml .yml",
    "archive": ".7z .bz2 .gz .rar .tar .tgz .xz .zip .zst",
}
_KIND_OF = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}
SUFFIXES = frozenset(_KINDS["photo"].split())
# Folders of small copies and of deleted photos, which photo stores, macOS and Windows make.
_SYSTEM_FOLDERS = frozenset(
    ["@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX", "System Volume Information", "lost+found"]
)


def is_hidden(path: str) -> bool:
    """Whether a file or one of its folders is hidden, as the twins are that macOS adds, or belongs to the system."""
    return any((part.startswith(".") and part not in (".", "..")) or part in _SYSTEM_FOLDERS for part in path.split("/"))


def kind_of(path: str, head: Callable[[], bytes]) -> str | None:
    """None for a photo, else what kind of file it is; `head` gives its first bytes where they are needed."""
    kind = _KIND_OF.get(PurePosixPath(path).suffix.lower())
    if kind is None:
        kind = "photo" if looks_readable(head()) else "unknown"
    return None if kind == "photo" else kind


def kind_of_file(path: Path) -> str | None:
    """`kind_of` a file on disk; one that cannot be read and has no photo's suffix is none."""
    return kind_of(path.name, lambda: _head(path))


def walk(folder: str | os.PathLike[str], skipped: Counter[str] | None = None) -> Iterator[str]:
    """Paths of all files below a folder, from there and with slashes, sorted; links to folders are followed, each folder once.

    Files and folders that are hidden or the system's are left out and counted in `skipped`. A folder that may not be listed
    stands for itself.
    """
    skipped = Counter() if skipped is None else skipped
    seen: set[tuple[int, int]] = set()
    unlisted: list[str] = []
    for root, folders, names in os.walk(folder, followlinks=True, onerror=lambda error: unlisted.append(error.filename)):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        shown = sorted(name for name in names if not is_hidden(name))
        shown_folders = sorted(name for name in folders if not is_hidden(name))
        skipped["hidden folders"] += len(folders) - len(shown_folders)
        skipped["hidden files"] += len(names) - len(shown)
        folders[:] = shown_folders
        below = Path(root).relative_to(folder).as_posix()
        yield from (shown if below == "." else (f"{below}/{name}" for name in shown))
    yield from (Path(path).relative_to(folder).as_posix() for path in unlisted)


def count_skipped(path: str, kind: str, skipped: Counter[str]) -> None:
    """Counts a file that is no photo, by kind and suffix."""
    suffix = PurePosixPath(path).suffix.lower()
    skipped[f"{kind} ({suffix or 'no suffix'})"] += 1


def describe_skipped(skipped: Counter[str]) -> str:
    """What was skipped, the most frequent first; nothing where nothing was."""
    return ", ".join(f"{count} {kind}" for kind, count in skipped.most_common() if count)


def _head(path: Path) -> bytes:
    try:
        if path.is_file():  # to open a pipe would be to wait
            with path.open("rb") as file:
                return file.read(HEAD)
    except OSError:
        pass
    return b""
