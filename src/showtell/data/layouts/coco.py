"""COCO's caption files (Chen et al. 2015), each of which is a split: `annotations/captions_train2017.json` beside `train2017/`.

{"images": [{"id": 391895, "file_name": "000000391895.jpg"}], "annotations": [{"image_id": 391895, "caption": ...}]}
"""

from pathlib import PurePosixPath

from showtell.data.dataset import Listing
from showtell.data.entries import Entry, coco, is_coco, split_of_file
from showtell.data.layouts.base import Columns, Layout
from showtell.data.tree import Tree

# COCO's other files are hundreds of megabytes of boxes and outlines.
_NO_CAPTIONS = ("instances_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


def json_files(tree: Tree) -> list[str]:
    """The JSON files that may hold captions: neither COCO's others nor those that lie beside a photo and tell of it."""
    photos = {PurePosixPath(file).with_suffix("").as_posix() for file in tree.photo_files}
    return [
        file
        for file in tree.with_suffix(".json")
        if not PurePosixPath(file).name.startswith(_NO_CAPTIONS) and file.removesuffix(".json") not in photos
    ]


def _files(tree: Tree) -> list[str]:
    return [file for file in json_files(tree) if is_coco(tree.json(file))]


def _detect(tree: Tree, columns: Columns) -> bool:
    return bool(_files(tree))


def _read(tree: Tree, columns: Columns) -> Listing:
    entries: list[Entry] = []
    for file in _files(tree) or tree.files:
        split = split_of_file(file)
        for entry in coco(tree.root / file, tree.json(file)):
            entries.append(entry if entry.split else entry._replace(split=split))
    return Listing(tree.name, tree.root, entries, tree.photos())


LAYOUT = Layout("coco", "COCO's captions_*.json", _detect, _read)
