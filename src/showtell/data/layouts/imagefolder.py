"""Hugging Face's image folder with captions: a `metadata.jsonl`, `metadata.csv` or `metadata.parquet` beside the photos.

    train/metadata.jsonl    {"file_name": "0001.png", "text": "A dog runs."}
    train/0001.png

Paths are relative to the metadata file. Splits are the names of folders.
"""

from showtell.data.dataset import Listing
from showtell.data.layouts.base import Columns, Layout
from showtell.data.layouts.table import SUFFIXES, has_columns, read_tables
from showtell.data.tree import Tree
from showtell.errors import DataError


def _files(tree: Tree, columns: Columns) -> list[str]:
    tables = tree.where(lambda file: file.stem.lower() == "metadata" and file.suffix.lower() in SUFFIXES)
    return [file for file in tables if has_columns(tree, file, columns)]


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    if not files:
        raise DataError(f"{tree.path}: no metadata.jsonl or metadata.csv with file_name and captions is here or below")
    return read_tables(tree, files, columns)


LAYOUT = Layout("imagefolder", "metadata.jsonl or metadata.csv with file_name and captions", _files, _read)
