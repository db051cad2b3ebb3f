"""Photos with their captions beside them, in a text file of the same name: dog.jpg and dog.txt, dog.caption or dog.jpg.txt.

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
    return any(file in texts or _stem(file) in texts for file in tree.photo_files)


def _read(tree: Tree, columns: Columns) -> Listing:
    texts: dict[str, list[str]] = {}
    for suffix in SUFFIXES:
        for file in tree.with_suffix(suffix):
            texts.setdefault(_stem(file), []).append(file)
    used: set[str] = set()
    second: set[str] = set()
    entries = []
    for photo in tree.photo_files:
        found = texts.get(photo, []) + texts.get(_stem(photo), [])
        text = found[0] if found else None
        used.update(found[:1])
        second.update(found[1:])
        captions = [line.strip() for _, line in parsing.lines(tree.root / text)] if text else []
        # A file without a line is a caption without a word.
        entries.append(Entry(str(tree.root / (text or photo)), photo, captions or [""] * bool(text), split_of_folder(photo)))
    lost = {file for files in texts.values() for file in files} - used - second
    skipped = {
        "text files lie beside no photo": sorted(lost),
        "text files stand back behind another of the same photo": sorted(second - used),
    }
    return Listing(tree.name, tree.root, entries, tree.photos(), skipped)


def _stem(file: str) -> str:
    return PurePosixPath(file).with_suffix("").as_posix()


LAYOUT = Layout("sidecar", "photos with a .txt or .caption of the same name", _detect, _read)
