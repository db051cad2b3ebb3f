"""Entries: the photos that a caption file lists, with their captions and splits; and Flickr's token files."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from showtell.data import parsing
from showtell.errors import DataError
from showtell.types import Split

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "restval": "train",  # Karpathy's: COCO's validation photos that he trains on
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validate": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
}
TOKEN_LINE = re.compile(r"(?P<name>[^\t]+)#(?P<index>\d+)\t(?P<caption>.*)")


class Entry(NamedTuple):
    """One photo as a file lists it: the place in the file, the photo's name or path, its captions, split and id."""

    place: str
    name: str
    captions: Sequence[str]
    split: Split | None = None
    key: str | None = None


def as_split(value: Any, place: str) -> Split | None:
    """The split that a value names; None for None or blank. Raises DataError for any other value."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    split = _SPLITS.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        raise DataError(f"{place}: {value!r} is no split; allowed are {', '.join(_SPLITS)} or nothing")
    return split


def split_of_folder(path: str) -> Split | None:
    """The split that a folder of a relative path names, as in `val2017/0.jpg`; of several, the innermost."""
    folders = re.split(r"[/\\]", path)[:-1]
    return next((split for folder in reversed(folders) if (split := _SPLITS.get(_without_year(folder)))), None)


def split_of_file(path: str) -> Split | None:
    """The split that a file's name contains, as in `captions_train2017.json` or `val-00001.tar`, or else its folder's."""
    words = re.split(r"[^a-z0-9]+", re.split(r"[/\\]", path)[-1].split(".")[0].lower())
    return next((split for word in words if (split := _SPLITS.get(_without_year(word)))), split_of_folder(path))


def _without_year(word: str) -> str:
    return re.sub(r"(19|20)\d\d$", "", word.lower())


def token_lines(path: Path) -> Iterator[Entry]:
    """Reads `name.jpg#0<TAB>caption`, the format of Flickr8k and Flickr30k: one entry for each photo, in the file's order."""
    entries: dict[str, Entry] = {}
    captions: dict[str, list[str]] = {}
    for number, line in parsing.lines(path):
        match = TOKEN_LINE.fullmatch(line)
        place = parsing.line(path, number)
        if match is None:
            raise DataError(f"{place}: {line[:60]!r} is not of the form name.jpg#0<TAB>caption")
        name = match["name"]
        if name not in entries:
            captions[name] = []
            entries[name] = Entry(place, name, captions[name])
        captions[name].append(match["caption"].strip())
    yield from entries.values()
