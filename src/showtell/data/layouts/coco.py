"""COCO's caption files (Chen et al. 2015), one for each split: `annotations/captions_train2017.json` beside `train2017/`.

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
    """The JSON files that may hold captions: neither COCO's other files nor metadata beside a photo."""
    photos = {PurePosixPath(file).with_suffix("").as_posix() for file in tree.photo_files}
    return [
        file
        for file in tree.with_suffix(".json")
        if not PurePosixPath(file).name.startswith(_NO_CAPTIONS) and file.removesuffix(".json") not in photos
    ]


def _files(tree: Tree, columns: Columns) -> list[str]:
    return [file for file in json_files(tree) if is_coco(tree.json(file))]


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    entries: list[Entry] = []
    for file in files or tree.files:
        split = split_of_file(file)
        for entry in coco(tree.root / file, tree.json(file)):
            entries.append(entry if entry.split else entry._replace(split=split))
    return Listing(tree.name, tree.root, entries, tree.photos())


LAYOUT = Layout("coco", "COCO's captions_*.json", _files, _read)
