"""Karpathy and Fei-Fei's JSON (2015) for Flickr8k, Flickr30k and COCO, such as `dataset_flickr8k.json`.

{"images": [{"filename": "2513260012_03d33305cf.jpg", "split": "train", "sentences": [{"raw": ...}]}]}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from showtell.data import parsing
from showtell.data.dataset import Listing
from showtell.data.entries import Entry, as_split
from showtell.data.layouts.base import Columns, Layout
from showtell.data.layouts.coco import json_files
from showtell.data.tree import Tree
from showtell.errors import DataError


def is_karpathy(value: Any) -> bool:
    """Whether a JSON value has the form of Karpathy's `dataset_*.json`."""
    images = value.get("images") if isinstance(value, dict) else None
    return isinstance(images, list) and all(isinstance(image, dict) and "sentences" in image for image in images[:1])


def _files(tree: Tree, columns: Columns) -> list[str]:
    return [file for file in json_files(tree) if is_karpathy(tree.json(file))]


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    if len(files) != 1:
        raise DataError(f"{tree.path}: {len(files)} files are Karpathy's ({', '.join(files) or 'none'}); give the path of one")
    value = tree.json(files[0])
    name = str(value.get("dataset") or tree.path.stem)
    return Listing(name, tree.root, list(_entries(tree.root / files[0], value)), tree.photos())


def _entries(path: Path, value: Any) -> Iterator[Entry]:
    """Reads Karpathy and Fei-Fei's JSON (2015): `images` with `filename`, `split`, and `sentences` with their `raw` text."""
    for number, image in enumerate(parsing.items(value, "images", str(path)), start=1):
        place = f"{path}, image {number}"
        name = parsing.text(parsing.get(image, "filename", place), place, "filename")
        texts = [
            parsing.text(parsing.get(sentence, "raw", place), place) for sentence in parsing.items(image, "sentences", place)
        ]
        key = next((parsing.identifier(image[known], place) for known in ("cocoid", "imgid") if known in image), None)
        yield Entry(place, name, texts, as_split(image.get("split"), place), key)


LAYOUT = Layout("karpathy", "Karpathy's dataset_*.json", _files, _read)
