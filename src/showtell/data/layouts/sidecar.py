"""Photos with their captions beside them, in a text file of the same name: dog.jpg and dog.txt or dog.caption.

Each line that is not blank is a caption. Splits are the names of folders.
"""

from pathlib import PurePosixPath

from showtell.data import parsing
from showtell.data.dataset import Listing
from showtell.data.entries import Entry, split_of_folder
from showtell.data.layouts.base import Columns, Layout
from showtell.data.tree import Tree

SUFFIXES = (".caption", ".txt")  # .txt beside a .caption holds tags


def _detect(tree: Tree, columns: Columns) -> bool:
    if tree.single:
        return False
    texts = {_stem(file) for file in tree.with_suffix(*SUFFIXES)}
    return any(_stem(file) in texts for file in tree.photo_files)


def _read(tree: Tree, columns: Columns) -> Listing:
    texts: dict[str, str] = {}
    second: list[str] = []
    for suffix in SUFFIXES:
        for file in tree.with_suffix(suffix):
            if texts.setdefault(_stem(file), file) != file:
                second.append(file)
    photos = {_stem(file) for file in tree.photo_files}
    entries = []
    for photo in tree.photo_files:
        text = texts.get(_stem(photo))
        captions = [line.strip() for _, line in parsing.lines(tree.root / text)] if text else []
        # A file without a line is a caption without a word.
        entries.append(Entry(str(tree.root / (text or photo)), photo, captions or [""] * bool(text), split_of_folder(photo)))
    skipped = {
        "text files lie beside no photo": [file for stem, file in texts.items() if stem not in photos],
        ".txt files stand back behind a .caption": second,
    }
    return Listing(tree.name, tree.root, entries, tree.photos(), skipped)


def _stem(file: str) -> str:
    return PurePosixPath(file).with_suffix("").as_posix()


LAYOUT = Layout("sidecar", "photos with a .txt or .caption of the same name", _detect, _read)
