"""WebDataset tars as img2dataset writes them: of each sample a photo, its caption and what else is known.

    00000.tar    000000000.jpg  000000000.txt  000000000.json  000000001.jpg ...

`data.convert` adds to the JSON what img2dataset has no place for: `image` (the photo's name), all `captions` and the `split`.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from showtell.data import parsing
from showtell.data.dataset import Listing
from showtell.data.entries import Entry, as_split, split_of_file
from showtell.data.layouts.base import Columns, Layout
from showtell.data.photos import PhotoStore, Place, is_photo, members
from showtell.data.tree import Tree
from showtell.errors import DataError

_TEXTS = ("txt", "caption", "json")
_LARGEST_TEXT = 1 << 20  # bytes; no caption is longer


def _detect(tree: Tree, columns: Columns) -> bool:
    return any(_has_captions(tree, file) for file in tree.with_suffix(".tar"))


def _has_captions(tree: Tree, file: str) -> bool:
    try:
        first = [_parts(name) for name, _ in itertools.islice(members(tree.root / file), 64)]
    except DataError:
        return False
    photos = {key for key, kind in first if is_photo(f"{key}.{kind}")}
    return any(key in photos for key, kind in first if kind in _TEXTS)


def _read(tree: Tree, columns: Columns) -> Listing:
    photos = PhotoStore()
    entries: list[Entry] = []
    without: list[str] = []
    for file in tree.with_suffix(".tar"):
        for key, parts in _samples(tree, file):
            place = f"{tree.root / file}, sample {key}"
            kind = next((kind for kind in parts if is_photo(f"{key}.{kind}")), None)
            if kind is None:
                without.append(f"{file}/{key}")
                continue
            about = parsing.parse_json(tree.root / file, _text(parts["json"], place), 1) if "json" in parts else {}
            if not isinstance(about, dict):
                raise DataError(f"{place}: its JSON is no object")
            name = about.get("image")
            if not isinstance(name, str) or photos.below(name) is not None:
                name = f"{file}/{key}.{kind}"
            photos.add(name, parts[kind])
            split = as_split(about.get("split"), place) or split_of_file(file)
            entries.append(Entry(place, name, _captions(parts, about, place), split))
    return Listing(tree.name, tree.root, entries, photos, {"samples of the tars have no photo": without})


def _samples(tree: Tree, file: str) -> Iterator[tuple[str, dict[str, Place]]]:
    """The samples of a tar: files of one key, which lie one after the other, by their kind."""
    found = ((*_parts(name), place) for name, place in members(tree.root / file))
    for key, group in itertools.groupby(found, key=lambda item: item[0]):
        yield key, {kind: place for _, kind, place in group}


def _parts(member: str) -> tuple[str, str]:
    """A member's key and kind; the first dot of the file name parts them."""
    folder, slash, name = member.removeprefix("./").rpartition("/")
    key, _, kind = name.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _captions(parts: dict[str, Place], about: dict[str, Any], place: str) -> list[str]:
    if "captions" in about:
        return [parsing.text(text, place) for text in parsing.items(about, "captions", place)]
    for kind in ("txt", "caption"):
        if kind in parts:
            return [" ".join(_text(parts[kind], place).split())]
    caption = about.get("caption")
    return [] if caption is None else [parsing.text(caption, place)]


def _text(part: Place, place: str) -> str:
    if part.size > _LARGEST_TEXT:
        raise DataError(f"{place}: {part.member} has {part.size:,} bytes; at most {_LARGEST_TEXT:,} are read")
    with open(part.file, "rb") as file:
        file.seek(part.offset)
        data = file.read(part.size)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: byte {error.start} of {part.member} is not UTF-8") from None


LAYOUT = Layout("webdataset", "tar files with photos and captions side by side", _detect, _read)
