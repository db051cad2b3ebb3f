"""Captions alone in the format of Flickr8k and Flickr30k, such as Flickr30k's `results_20130124.token`; it has no splits.

1000092795.jpg#0<TAB>Two dogs wait at a door .
"""

from showtell.data.dataset import Listing
from showtell.data.entries import TOKEN_LINE, Entry, token_lines
from showtell.data.layouts.base import Columns, Layout
from showtell.data.layouts.flickr8k import splits_beside
from showtell.data.tree import Tree


def _files(tree: Tree) -> list[str]:
    named = tree.with_suffix(".token", *([".txt"] if tree.single else []))
    return [file for file in named if file.endswith(".token") or TOKEN_LINE.fullmatch(tree.first_line(file))]


def _detect(tree: Tree, columns: Columns) -> bool:
    return bool(_files(tree)) and not splits_beside(tree)


def _read(tree: Tree, columns: Columns) -> Listing:
    entries: list[Entry] = [entry for file in _files(tree) or tree.files for entry in token_lines(tree.root / file)]
    return Listing(tree.name, tree.root, entries, tree.photos())


LAYOUT = Layout("token", "a .token file such as results_20130124.token", _detect, _read)
