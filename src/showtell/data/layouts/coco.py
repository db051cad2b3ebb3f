"""COCO's caption files (Chen et al. 2015), one for each split: `annotations/captions_train2017.json` beside `train2017/`.

{"images": [{"id": 391895, "file_name": "000000391895.jpg"}], "annotations": [{"image_id": 391895, "caption": ...}]}
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from showtell.data import parsing
from showtell.data.dataset import Listing
from showtell.data.entries import Entry, as_split, split_of_file
from showtell.data.layouts.base import Columns, Layout
from showtell.data.tree import Tree
from showtell.errors import DataError

# COCO's other files are hundreds of megabytes of boxes and outlines.
_NO_CAPTIONS = ("instances_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


def json_files(tree: Tree) -> list[str]:
    """The JSON files that may hold captions: neither COCO's other files nor metadata beside a photo."""
    photos = {PurePosixPath(file).with_suffix("").as_posix() for file in tree.photo_files}
    return [
        file
        for file in tree.with_suffix(".json")
        if not PurePosixPath(file).name.startswith(_NO_CAPTIONS) and file.removesuffix(".json") not in photos
    ]


def is_coco(value: Any) -> bool:
    """Whether a JSON value has the form of COCO's captions, unlike its boxes and key points."""
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        return False
    annotations = value.get("annotations", [{}])
    return not isinstance(annotations, list) or all(isinstance(a, dict) and "caption" in a for a in annotations[:1])


def _files(tree: Tree, columns: Columns) -> list[str]:
    return [file for file in json_files(tree) if is_coco(tree.json(file))]


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    entries: list[Entry] = []
    for file in files or tree.files:
        split = split_of_file(file)
        for entry in _entries(tree.root / file, tree.json(file)):
            entries.append(entry if entry.split else entry._replace(split=split))
    return Listing(tree.name, tree.root, entries, tree.photos())


def _entries(path: Path, value: Any) -> Iterator[Entry]:
    """Reads COCO captions: `images` with `id` and `file_name`, `annotations` with `image_id` and `caption`.

    An image's `split`, which `convert` adds to COCO's keys, is read too.
    """
    annotations = parsing.get(value, "annotations", str(path))
    if not isinstance(annotations, list):
        raise DataError(f"{path}: `annotations` is no list; COCO's holds an object for each caption")
    entries: dict[str, Entry] = {}
    captions: dict[str, list[str]] = {}
    for number, image in enumerate(parsing.items(value, "images", str(path)), start=1):
        place = f"{path}, image {number}"
        key = parsing.identifier(parsing.get(image, "id", place), place)
        if key in entries:
            raise DataError(f"{place}: an earlier image has the id {key} too; ids must differ")
        captions[key] = []
        name = parsing.text(parsing.get(image, "file_name", place), place, "file_name")
        entries[key] = Entry(place, name, captions[key], as_split(image.get("split"), place), key)
    for number, annotation in enumerate(annotations, start=1):
        place = f"{path}, annotation {number}"
        key = parsing.identifier(parsing.get(annotation, "image_id", place), place)
        if key not in captions:
            raise DataError(f"{place}: the image id {key} is not in the list `images`; add it there")
        captions[key].append(parsing.text(parsing.get(annotation, "caption", place), place))
    yield from entries.values()


LAYOUT = Layout("coco", "COCO's captions_*.json", _files, _read)
