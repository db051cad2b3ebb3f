"""Flickr8k in its official layout (Hodosh, Young and Hockenmaier 2013, JAIR 47).

    Flickr8k.token.txt              name.jpg#k<TAB>caption, five captions a photo
    Flickr_8k.trainImages.txt       6,000 photo names, one a line; likewise devImages and testImages, 1,000 each

The text files and the photos (a folder of them, or uncompressed tar files) may lie anywhere below the given folder.
"""

import re
from pathlib import Path

from showtell.data.dataset import Dataset, PhotoStore
from showtell.errors import DataError
from showtell.types import Sample, Split

TOKEN_FILE = "Flickr8k.token.txt"
SPLIT_FILES: dict[Split, str] = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_TOKEN_LINE = re.compile(r"(?P<name>[^\t#]+)#(?P<index>\d+)\t(?P<caption>.*)")


def read_flickr8k(folder: str | Path) -> Dataset:
    """The data set below `folder`.

    Photos that a split lists but the disk lacks are left out and named in `Dataset.missing`; raises DataError where more
    than half of all are missing, a text file is absent or a line is malformed (file and line are named).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the one that holds {TOKEN_FILE} and the photos")
    captions = read_captions(_find(folder, TOKEN_FILE))
    photos = PhotoStore(folders=[folder], tars=sorted(folder.rglob("*.tar")))

    samples: list[Sample] = []
    missing: list[str] = []
    seen: dict[str, Split] = {}
    for split, file_name in SPLIT_FILES.items():
        path = _find(folder, file_name)
        for number, line in enumerate(_lines(path), start=1):
            name = line.strip()
            if not name:
                continue
            if name in seen:
                raise DataError(f"{path}, line {number}: {name} is listed in {seen[name]} already; a photo has one split")
            seen[name] = split
            if name not in captions:
                raise DataError(f"{path}, line {number}: {name} has no caption in {TOKEN_FILE}")
            if name in photos:
                samples.append(Sample(name, tuple(captions[name]), split))
            else:
                missing.append(name)
    if len(missing) > len(samples):
        raise DataError(
            f"{folder}: {len(missing)} of {len(seen)} listed photos are missing, {', '.join(missing[:3])} among them. Put the "
            "photos of Flickr8k_Dataset (a folder of .jpg files or uncompressed .tar files) into this folder"
        )
    return Dataset("Flickr8k", tuple(samples), photos, tuple(missing))


def read_captions(path: Path) -> dict[str, list[str]]:
    """Captions by photo name from a token file, in its order. Raises DataError naming the line that is malformed."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        match = _TOKEN_LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}, line {number}: {line[:60]!r} is not of the form name.jpg#0<TAB>caption")
        captions.setdefault(match["name"], []).append(match["caption"].strip())
    return captions


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; convert the file") from None


def _find(folder: Path, name: str) -> Path:
    direct = [place for place in (folder / name, folder / "text" / name) if place.is_file()]
    found = direct or sorted(folder.rglob(name))
    if not found:
        raise DataError(f"{folder}: {name} is not in this folder or below it; get it from Flickr8k_text.zip")
    return found[0]
