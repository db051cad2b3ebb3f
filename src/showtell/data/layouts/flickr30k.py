"""Flickr30k's `results.csv`, a table with bars between its cells; it has no splits.

image_name| comment_number| comment
1000092795.jpg| 0| Two dogs wait at a door .
"""

import re

from showtell.data import parsing
from showtell.data.dataset import Listing
from showtell.data.entries import Entry
from showtell.data.layouts.base import Columns, Layout
from showtell.data.tree import Tree
from showtell.errors import DataError

_HEADER = ["image_name", "comment_number", "comment"]
# In the published file, the fifth row of 2199200615.jpg has spaces instead of its second bar.
_ROW = re.compile(r"(?P<name>[^|]+?)\s*\|\s*\d+\s*(\||\s{2})(?P<caption>.*)")


def _files(tree: Tree, columns: Columns) -> list[str]:
    return [file for file in tree.with_suffix(".csv") if is_flickr30k(tree.first_line(file))]


def is_flickr30k(line: str) -> bool:
    """Whether a line is the header of Flickr30k's table."""
    return [cell.strip() for cell in line.split("|")] == _HEADER


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    if len({parsing.content(tree.root / file) for file in files}) == 1:
        files = files[:1]  # Kaggle's archive has it twice
    if len(files) != 1:
        raise DataError(f"{tree.path}: {len(files)} tables begin with {'| '.join(_HEADER)}; give the path of one")
    path = tree.root / files[0]
    entries = []
    for number, line in parsing.lines(path):
        if number == 1:
            continue
        match = _ROW.fullmatch(line)
        if match is None:
            column = len(line.rstrip()) + 1 if "|" not in line else line.index("|") + 2
            place = f"{parsing.line(path, number)}, column {column}"
            raise DataError(f"{place}: {line[:60]!r} is not of the form name.jpg| 0| caption")
        entries.append(Entry(parsing.line(path, number), match["name"].strip(), [match["caption"].strip()]))
    return Listing("Flickr30k", tree.root, entries, tree.photos())


LAYOUT = Layout("flickr30k", "results.csv with the header image_name| comment_number| comment", _files, _read)
