"""The layouts that data sets come in, one module each: how it is recognised, and how it is read.

To add one, write a module with a `LAYOUT` and name it in `LAYOUTS`.
"""

from pathlib import Path

from showtell.data import parquet
from showtell.data.dataset import Dataset, Listing, assemble, with_random_split
from showtell.data.layouts import (
    captions_txt,
    coco,
    flickr8k,
    flickr30k,
    imagefolder,
    karpathy,
    sidecar,
    table,
    token,
    webdataset,
)
from showtell.data.layouts.base import Columns, Layout
from showtell.data.photos import COMPRESSED
from showtell.data.tree import Tree
from showtell.errors import DataError, MissingExtraError, OptionError

LAYOUTS: dict[str, Layout] = {
    module.LAYOUT.name: module.LAYOUT
    for module in (
        flickr8k,
        captions_txt,
        flickr30k,
        token,
        karpathy,
        coco,
        imagefolder,
        table,
        sidecar,
        webdataset,
    )
}


def list_entries(
    path: str | Path, layout: str | None = None, *, columns: Columns | None = None, photos: bool = True
) -> Listing:
    """What the caption files at `path` say, photos not yet looked at; without `photos`, nobody looks which there are.

    Raises OptionError for a layout that is not known, DataError where none or several are recognised, or a file is broken.
    """
    tree = Tree(path, photos=photos)
    columns = columns or Columns()
    return _choose(tree, layout, columns).read(tree, columns)


def read(path: str | Path, layout: str | None = None, *, columns: Columns | None = None, split_seed: int | None = 0) -> Dataset:
    """The data set at `path`, a folder or a caption file; its layout is recognised unless named.

    Where the data has no splits they are drawn with `split_seed`; None leaves the photos without. Raises what `list_entries`
    and `assemble` raise.
    """
    dataset = assemble(list_entries(path, layout, columns=columns))
    if split_seed is None or any(sample.split for sample in dataset.samples):
        return dataset
    return with_random_split(dataset, split_seed)


def recognise(path: str | Path, columns: Columns | None = None) -> list[Layout]:
    """The layouts that what is at `path` looks like; none where it is a mere folder of photos.

    Raises DataError where none is recognised and a file that might have told is broken.
    """
    return _recognise(Tree(path), columns or Columns())


def _recognise(tree: Tree, columns: Columns) -> list[Layout]:
    found: list[Layout] = []
    broken: list[DataError] = []
    for layout in LAYOUTS.values():
        try:
            if layout.detect(tree, columns):
                found.append(layout)
        except DataError as error:
            broken.append(error)
    if broken and not found:
        raise broken[0]
    return found


def _choose(tree: Tree, name: str | None, columns: Columns) -> Layout:
    if name is not None:
        if name not in LAYOUTS:
            raise OptionError(f"layout {name!r} is not known; known are {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    found = _recognise(tree, columns)
    if not found and tree.with_suffix(".parquet") and not parquet.installed():
        raise MissingExtraError("parquet", f"{tree.path}: reading its .parquet files")
    if not found:
        looked = "; ".join(f"{layout.sign} ({layout.name})" for layout in LAYOUTS.values())
        if packed := tree.with_suffix(*COMPRESSED):
            raise DataError(f"{tree.root / packed[0]}: is compressed, and photos are read in place; unpack it (gunzip, unzip)")
        what = "no captions are recognised in this file" if tree.single else "no data set is recognised"
        raise DataError(f"{tree.path}: {what}. Looked for: {looked}. Name the layout with --layout")
    if len(found) > 1:
        signs = " and ".join(f"{layout.name} ({layout.sign})" for layout in found)
        raise DataError(
            f"{tree.path}: looks like {signs}. Name one with --layout, or give a caption file instead of the folder"
        )
    return found[0]
