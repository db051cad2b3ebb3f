"""Sidecar files: each photo has a text file of the same name with its captions, as dog.txt, dog.caption or dog.jpg.txt.

Each line that is not blank is a caption. Splits are the names of folders.
"""

from pathlib import PurePosixPath

from showtell.data import parsing
from showtell.data.dataset import Listing
from showtell.data.entries import Entry, split_of_folder
from showtell.data.layouts.base import Columns, Layout
from showtell.data.tree import Tree

SUFFIXES = (".caption", ".txt")  # a .txt beside a .caption holds tags


def _files(tree: Tree, columns: Columns) -> list[str]:
    if tree.single:
        return []
    texts = {_stem(file) for file in tree.with_suffix(*SUFFIXES)}
    return [file for file in tree.photo_files if file in texts or _stem(file) in texts]


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    texts: dict[str, list[str]] = {}
    for suffix in SUFFIXES:
        for file in tree.with_suffix(suffix):
            texts.setdefault(_stem(file), []).append(file)
    used: set[str] = set()
    second: set[str] = set()
    entries = []
    for photo in tree.photo_files:
        own = texts.get(photo, []) + texts.get(_stem(photo), [])
        text = own[0] if own else None
        used.update(own[:1])
        second.update(own[1:])
        captions = [line.strip() for _, line in parsing.lines(tree.root / text)] if text else []
        # An empty file is an empty caption.
        entries.append(Entry(str(tree.root / (text or photo)), photo, captions or [""] * bool(text), split_of_folder(photo)))
    lost = {file for files in texts.values() for file in files} - used - second
    skipped = {
        "text files have no photo": sorted(lost),
        "text files are ignored for another one of the same photo": sorted(second - used),
    }
    return Listing(tree.name, tree.root, entries, tree.photos(), skipped)


def _stem(file: str) -> str:
    return PurePosixPath(file).with_suffix("").as_posix()


LAYOUT = Layout("sidecar", "photos with a .txt or .caption of the same name", _files, _read)
