"""Token files without split lists, such as Flickr30k's `results_20130124.token`.

1000092795.jpg#0<TAB>Two dogs wait at a door .
"""

from showtell.data.dataset import Listing
from showtell.data.entries import TOKEN_LINE, Entry, token_lines
from showtell.data.layouts.base import Columns, Layout
from showtell.data.layouts.flickr8k import splits_beside
from showtell.data.tree import Tree


def _files(tree: Tree, columns: Columns) -> list[str]:
    if splits_beside(tree):
        return []
    named = tree.with_suffix(".token", *([".txt"] if tree.single else []))
    return [file for file in named if file.endswith(".token") or TOKEN_LINE.fullmatch(tree.first_line(file))]


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    entries: list[Entry] = [entry for file in files or tree.files for entry in token_lines(tree.root / file)]
    return Listing(tree.name, tree.root, entries, tree.photos())


LAYOUT = Layout("token", "a .token file such as results_20130124.token", _files, _read)
