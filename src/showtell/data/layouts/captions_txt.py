"""`captions.txt`, the most common form of Flickr8k: a table in a text file, without splits.

image,caption
1000268201_693b08cb0e.jpg,A girl feeds ducks at a pond .
"""

from showtell.data.dataset import Listing
from showtell.data.layouts.base import Columns, Layout
from showtell.data.layouts.table import has_columns, read_tables
from showtell.data.tree import Tree
from showtell.errors import DataError


def _files(tree: Tree, columns: Columns) -> list[str]:
    # Other text files are not opened: there may be one for each photo.
    named = tree.where(lambda file: file.suffix.lower() == ".txt" and (tree.single or "captions" in file.stem.lower()))
    return [file for file in named if has_columns(tree, file, columns)]


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    if len(files) != 1:
        raise DataError(f"{tree.path}: {len(files)} text files are tables of captions; give the path of one")
    return read_tables(tree, files, columns)


LAYOUT = Layout("captions-txt", "captions.txt with a header such as image,caption", _files, _read)
