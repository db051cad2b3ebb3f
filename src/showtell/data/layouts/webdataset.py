"""WebDataset tars as img2dataset writes them: for each sample a photo, its caption and metadata.

    00000.tar    000000000.jpg  000000000.txt  000000000.json  000000001.jpg ...

`data.convert` adds keys to the JSON that img2dataset does not have: `image` (the photo's name), `captions` and `split`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
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
_NO_PHOTO = "samples of the tars have no photo"
_BESIDE = "photos of the tars are second photos of a sample"
_SEVERAL = "photos of the tars share one caption"

Parts = dict[str, Place]  # a sample's text files by suffix


def _files(tree: Tree, columns: Columns) -> list[str]:
    return [file for file in tree.with_suffix(".tar") if _has_captions(tree, file)]


def _has_captions(tree: Tree, file: str) -> bool:
    try:
        return any(parts for _, parts in _samples(tree.once(file, _members), defaultdict(list)))
    except DataError:
        return False


def _members(path: Path) -> dict[str, Place]:
    return dict(members(path))


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    photos = PhotoStore()
    entries: list[Entry] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    for file in tree.with_suffix(".tar"):
        places = tree.once(file, _members)
        left_out: dict[str, list[str]] = defaultdict(list)
        for member, parts in _samples(places, left_out):
            place = f"{tree.root / file}, sample {_stem(member)}"
            about = parsing.parse_json(tree.root / file, _text(parts["json"], place), 1) if "json" in parts else {}
            if not isinstance(about, dict):
                raise DataError(f"{place}: its JSON is no object")
            name = about.get("image")
            if not isinstance(name, str) or photos.below(name) is not None:
                name = f"{file}/{member}"
            photos.add(name, places[member])
            split = as_split(about.get("split"), place) or split_of_file(file)
            entries.append(Entry(place, name, _captions(parts, about, place), split))
        for reason, names in left_out.items():
            skipped[reason] += [f"{file}/{name}" for name in names]
    return Listing(tree.name, tree.root, entries, photos, skipped)


def _samples(places: dict[str, Place], left_out: dict[str, list[str]]) -> Iterator[tuple[str, Parts]]:
    """The photos of a tar, each with its text files in any order; adds the names of other members to `left_out`, by reason.

    A text file belongs to the photo with the same name up to the last dot, or else up to the first dot.
    """
    photos: dict[str, list[str]] = defaultdict(list)
    texts: dict[str, Parts] = defaultdict(dict)
    for name, place in places.items():
        kind = PurePosixPath(name).suffix.lower().removeprefix(".")
        if kind in _TEXTS:
            texts[_stem(name)][kind] = place
        elif is_photo(name, place):
            photos[_stem(name)].append(name)
    shared: dict[str, Parts] = defaultdict(dict)  # text files without a photo of the same name, by key
    for stem, parts in texts.items():
        if stem not in photos:
            shared[_key(stem)].update(parts)
    waiting = Counter(_key(stem) for stem in photos if stem not in texts)
    for stem, names in photos.items():
        key = _key(stem)
        first, *others = sorted(names)
        left_out[_BESIDE] += others
        if stem in texts:
            yield first, texts[stem]
        elif stem != key and key in photos and (key in texts or key in shared):
            left_out[_BESIDE].append(first)  # a map of depths or outlines
        elif stem != key and key in shared and waiting[key] > 1:
            left_out[_SEVERAL].append(first)
        else:
            yield first, shared.get(key, {})
    left_out[_NO_PHOTO] += [stem for stem in texts if stem not in photos and _key(stem) not in waiting]


def _stem(member: str) -> str:
    """A member's path up to the last dot of its file name."""
    return PurePosixPath(member).with_suffix("").as_posix()


def _key(stem: str) -> str:
    """A path up to the first dot of its file name, which is WebDataset's key of a sample."""
    folder, slash, name = stem.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _captions(parts: Parts, about: dict[str, Any], place: str) -> list[str]:
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
    try:
        return part.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: byte {error.start} of {part.member} is not UTF-8") from None


LAYOUT = Layout("webdataset", "tar files with photos and captions side by side", _files, _read)
