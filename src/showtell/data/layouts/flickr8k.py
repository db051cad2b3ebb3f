"""Flickr8k in its official layout (Hodosh, Young and Hockenmaier 2013, JAIR 47).

    Flickr8k.token.txt              name.jpg#k<TAB>caption, five captions a photo
    Flickr_8k.trainImages.txt       6,000 photo names, one a line; likewise devImages and testImages, 1,000 each

The text files and the photos may lie anywhere below the folder.
"""

from pathlib import Path

from showtell.data import parsing
from showtell.data.dataset import Listing
from showtell.data.entries import Entry, token_lines
from showtell.data.layouts.base import Columns, Layout
from showtell.data.tree import Tree
from showtell.errors import DataError
from showtell.types import Split

TOKEN_FILE = "Flickr8k.token.txt"
SPLIT_FILES: dict[Split, str] = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def splits_beside(tree: Tree) -> bool:
    """Whether the user named a token file that has the split lists beside it."""
    named = tree.single and tree.path.name.endswith((".token", ".token.txt"))
    return named and all((tree.path.parent / name).is_file() for name in SPLIT_FILES.values())


def _files(tree: Tree, columns: Columns) -> list[str]:
    if tree.single:
        return [*tree.files] if splits_beside(tree) else []
    return tree.where(lambda file: file.name == TOKEN_FILE)


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    captions = {entry.name: entry for entry in token_lines(tree.path if tree.single else _find(tree, TOKEN_FILE))}
    entries: list[Entry] = []
    listed: set[str] = set()
    for split, file_name in SPLIT_FILES.items():
        path = _find(tree, file_name)
        for number, line in parsing.lines(path):
            name = line.strip()
            texts = captions[name].captions if name in captions else ()
            # A photo in two lists gets its captions once.
            entries.append(Entry(parsing.line(path, number), name, () if name in listed else texts, split))
            listed.add(name)
    entries += [entry for entry in captions.values() if entry.name not in listed]
    return Listing(tree.name, tree.root, entries, tree.photos())


def _find(tree: Tree, name: str) -> Path:
    if tree.single and (path := tree.path.parent / name).is_file():
        return path
    # Copies in other folders are common; the one highest up is the right one.
    files = sorted(tree.where(lambda file: file.name == name), key=lambda file: (file.count("/"), file))
    if not files:
        raise DataError(f"{tree.root}: {name} is not in this folder or below it; get it from Flickr8k_text.zip")
    return tree.root / files[0]


LAYOUT = Layout("flickr8k", TOKEN_FILE, _files, _read)
