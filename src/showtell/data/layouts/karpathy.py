"""Karpathy and Fei-Fei's JSON (2015) for Flickr8k, Flickr30k and COCO, such as `dataset_flickr8k.json`.

{"images": [{"filename": "2513260012_03d33305cf.jpg", "split": "train", "sentences": [{"raw": ...}]}]}
"""

from showtell.data.dataset import Listing
from showtell.data.entries import is_karpathy, karpathy
from showtell.data.layouts.base import Columns, Layout
from showtell.data.layouts.coco import json_files
from showtell.data.tree import Tree
from showtell.errors import DataError


def _files(tree: Tree, columns: Columns) -> list[str]:
    return [file for file in json_files(tree) if is_karpathy(tree.json(file))]


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    if len(files) != 1:
        raise DataError(f"{tree.path}: {len(files)} files are Karpathy's ({', '.join(files) or 'none'}); give the path of one")
    value = tree.json(files[0])
    name = str(value.get("dataset") or tree.path.stem)
    return Listing(name, tree.root, list(karpathy(tree.root / files[0], value)), tree.photos())


LAYOUT = Layout("karpathy", "Karpathy's dataset_*.json", _files, _read)
