"""Finds the photos of a folder: by their suffix, or by their first bytes where the suffix is unknown."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from showtell.image.formats import HEAD, looks_readable

# Kinds of files by suffix. The first bytes of camera raw files are those of TIFF, so they do not tell.
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
# Folders of thumbnails and of deleted photos, made by photo stores, macOS and Windows.
_SYSTEM_FOLDERS = frozenset(
    ["@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX", "System Volume Information", "lost+found"]
)


def is_hidden(path: str) -> bool:
    """Whether a file or one of its folders is hidden, as macOS's `._` files, or belongs to the system."""
    parts = path.split("/") if "/" in path else (path,)
    return any([part in _SYSTEM_FOLDERS or (part[:1] == "." and part not in (".", "..")) for part in parts])  # noqa: C419  # faster


def kind_of(path: str, head: Callable[[], bytes]) -> str | None:
    """The kind of a file, None for a photo; `head` returns its first bytes where they are needed."""
    kind = _KIND_OF.get(PurePosixPath(path).suffix.lower())
    if kind is None:
        kind = "photo" if looks_readable(head()) else "unknown"
    return None if kind == "photo" else kind


def kind_of_file(path: Path) -> str | None:
    """The kind of a file on disk, None for a photo. A file that cannot be read is a photo by its suffix alone."""
    return kind_of(path.name, lambda: _head(path))


def walk(folder: str | os.PathLike[str], skipped: Counter[str] | None = None) -> Iterator[str]:
    """Paths of all files below a folder, relative to it and with slashes, sorted. Links are followed, each folder once.

    Hidden files and folders, and those of the system, are left out and counted in `skipped`. A folder that cannot be listed is
    itself one of the paths.
    """
    skipped = Counter() if skipped is None else skipped
    seen: set[tuple[int, int]] = set()
    unlisted: list[str] = []
    waiting = [""]  # folders, as paths below `folder` that end with a slash
    while waiting:
        below = waiting.pop()
        folders: list[str] = []
        names: list[str] = []
        links: set[str] = set()
        place = os.path.join(folder, below)  # noqa: PTH118  # a Path for each of many links takes longer
        try:
            status = Path(place).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        skipped["hidden folders" if entry.is_dir() else "hidden files"] += 1
                    elif entry.is_symlink():  # where it leads is asked when its turn comes: 100,000 links would take a second
                        links.add(entry.name)
                    else:
                        (folders if entry.is_dir() else names).append(entry.name)
        except OSError:
            unlisted.append(below.rstrip("/") or ".")
        for name in sorted([*names, *links]):
            if name in links and os.path.isdir(f"{place}/{name}"):  # noqa: PTH112  # Path.is_dir may raise
                folders.append(name)
            else:
                yield below + name
        waiting.extend(f"{below}{name}/" for name in sorted(folders, reverse=True))
    yield from unlisted


def count_skipped(path: str, kind: str, skipped: Counter[str]) -> None:
    """Counts a file that is no photo in `skipped`, by kind and suffix."""
    suffix = PurePosixPath(path).suffix.lower()
    skipped[f"{kind} ({suffix or 'no suffix'})"] += 1


def describe_skipped(skipped: Counter[str]) -> str:
    """The skipped files in words, the most frequent kind first; empty where there are none."""
    return ", ".join(f"{count} {kind}" for kind, count in skipped.most_common() if count)


def _head(path: Path) -> bytes:
    try:
        if path.is_file():  # opening a pipe would wait
            with path.open("rb") as file:
                return file.read(HEAD)
    except OSError:
        pass
    return b""
