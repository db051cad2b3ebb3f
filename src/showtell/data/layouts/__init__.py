"""The layouts of data sets, one module each: its sign, and how it is read.

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
    """Reads the caption files at `path`; without `photos`, photos are not searched for.

    Raises OptionError for an unknown layout, DataError where none or several are recognised, or a file is broken.
    """
    tree = Tree(path, photos=photos)
    columns = columns or Columns()
    chosen = _choose(tree, layout, columns)
    return chosen.read(tree, columns, chosen.files(tree, columns))


def read(path: str | Path, layout: str | None = None, *, columns: Columns | None = None, split_seed: int | None = 0) -> Dataset:
    """Reads the data set at `path`, a folder or a caption file; its layout is recognised unless named.

    Data without splits is split with `split_seed`, or stays without where that is None. Raises what `list_entries` and
    `assemble` raise.
    """
    dataset = assemble(list_entries(path, layout, columns=columns))
    if split_seed is None or any(sample.split for sample in dataset.samples):
        return dataset
    return with_random_split(dataset, split_seed)


def recognise(path: str | Path, columns: Columns | None = None) -> list[Layout]:
    """The layouts whose signs are at `path`; none for a folder of photos alone.

    Raises DataError where none is recognised and a file is broken.
    """
    return _recognise(Tree(path), columns or Columns())


def _recognise(tree: Tree, columns: Columns) -> list[Layout]:
    layouts: list[Layout] = []
    errors: list[DataError] = []
    for layout in LAYOUTS.values():
        try:
            if layout.files(tree, columns):
                layouts.append(layout)
        except DataError as error:
            errors.append(error)
    if errors and not layouts:
        raise errors[0]
    return layouts


def _choose(tree: Tree, name: str | None, columns: Columns) -> Layout:
    if name is not None:
        if name not in LAYOUTS:
            raise OptionError(f"layout {name!r} is not known; known are {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    layouts = _recognise(tree, columns)
    if not layouts and tree.with_suffix(".parquet") and not parquet.installed():
        raise MissingExtraError("parquet", f"{tree.path}: reading its .parquet files")
    if not layouts:
        looked = "; ".join(f"{layout.sign} ({layout.name})" for layout in LAYOUTS.values())
        if packed := tree.with_suffix(*COMPRESSED):
            raise DataError(f"{tree.root / packed[0]}: is compressed, and photos are read in place; unpack it (gunzip, unzip)")
        what = "no captions are recognised in this file" if tree.single else "no data set is recognised"
        raise DataError(f"{tree.path}: {what}. Looked for: {looked}. Name the layout with --layout")
    if len(layouts) > 1:
        signs = " and ".join(f"{layout.name} ({layout.sign})" for layout in layouts)
        raise DataError(
            f"{tree.path}: looks like {signs}. Name one with --layout, or give a caption file instead of the folder"
        )
    return layouts[0]
