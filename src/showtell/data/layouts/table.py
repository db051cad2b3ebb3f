"""Tables with a column of paths and one or more columns of captions: CSV, TSV, JSON, JSON lines and Parquet.

    image,caption,split
    photos/dog.jpg,A dog runs.,train

A photo may have several rows, several columns (caption_1, caption_2) or a list of captions in one cell. Splits come from a
column or from the files' names (train.csv, val.csv). Text tables may have no header where each row is a path and a caption.
"""

import ast
import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from showtell.data import parquet, parsing
from showtell.data.dataset import Listing
from showtell.data.entries import TOKEN_LINE, Entry, as_split, split_of_file
from showtell.data.layouts.base import Columns, Layout
from showtell.data.layouts.coco import is_coco, json_files
from showtell.data.layouts.flickr30k import is_flickr30k
from showtell.data.layouts.karpathy import is_karpathy
from showtell.data.photos import PhotoStore, Place
from showtell.data.tree import Tree
from showtell.errors import DataError
from showtell.image import SUFFIXES as PHOTO_SUFFIXES

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
# The common names of columns, the most common first. COCO's results have ids instead of paths.
_COMMON = {
    "image": "image path file_name filename filepath file_path image_path image_file image_name img photo file",
    "id": "image_id img_id cocoid",
    "caption": "caption captions text description sentence sentences comment alt_text alt raw",
    "split": "split",
}
COMMON = {kind: tuple(names.split()) for kind, names in _COMMON.items()}
_PYTHON_LIST = re.compile(r"""\[(['"]).*(['"])\]""", re.DOTALL)

Row = tuple[str, Mapping[str, Any]]  # its place and its cells by column


@dataclass(frozen=True)
class Chosen:
    """The names of the columns to read of one table."""

    image: str
    captions: tuple[str, ...]
    split: str | None
    key: str | None


def read_tables(tree: Tree, files: Sequence[str], columns: Columns) -> Listing:
    """Reads tables, whose paths are relative to the table's folder or to the root, or are file names."""
    photos = tree.photos()
    entries: list[Entry] = []
    failed: list[str] = []
    for file in files:
        names, rows = _open(tree, file, columns)
        chosen = choose(names, columns, tree.root / file)
        file_split = split_of_file(file)
        for number, (place, row) in enumerate(rows):
            if row.get("status") == "error":  # a record of a photo that could not be captioned
                failed.append(str(row.get(chosen.image)))
                continue
            name = _name(row, chosen.image, place)
            if isinstance(name, bytes):
                member = parquet.photo_name(row[chosen.image], number)
                photos.add(f"{file}/{member}", Place(tree.root / file, member, number, len(name), chosen.image))
                name = f"{file}/{member}"
            captions = _captions(row, chosen.captions, place)
            split = as_split(row.get(chosen.split), f"{place}, column {chosen.split}") if chosen.split else None
            key = row.get(chosen.key) if chosen.key else None
            key = None if key is None else parsing.identifier(key, f"{place}, column {chosen.key}")
            entries.append(Entry(place, _below(name, file, photos), captions, split or file_split, key))
    return Listing(tree.name, tree.root, entries, photos, {"rows tell of photos that could not be captioned": failed})


def choose(names: Sequence[str], columns: Columns, path: Path) -> Chosen:
    """Chooses the columns of a table by `columns` and by their names. Raises DataError where one is missing."""

    def first(kind: str) -> str | None:
        return next((name for common in COMMON[kind] for name in names if name.lower() == common), None)

    key = first("id")
    image = columns.image or first("image") or key
    if columns.caption:
        captions = [name.strip() for name in columns.caption.split(",")]
    else:
        numbered = (
            [name for name in names if re.fullmatch(rf"{common}([._ -]?\d+)?", name.lower())] for common in COMMON["caption"]
        )
        captions = next(filter(None, numbered), [])
    split = columns.split or first("split")
    have = f"the columns are {', '.join(names) or 'none'}"
    if image is None:
        raise DataError(f"{path}, line 1: no column of paths is recognised; {have}; name it with --image-column")
    if not captions:
        raise DataError(f"{path}, line 1: no column of captions is recognised; {have}; name it with --caption-column")
    for name in (image, *captions, *([split] if split else [])):
        if name not in names:
            raise DataError(f"{path}, line 1: there is no column {name!r}; {have}")
    for one in (image, split):
        if f"{one}.1" in names:
            raise DataError(f"{path}, line 1: several columns are called {one!r}; leave one")
    return Chosen(image, tuple(captions), split, key)


def has_columns(tree: Tree, file: str, columns: Columns) -> bool:
    """Whether a file is a table of captions, judged by its first row. Raises DataError where that row is broken."""
    suffix = PurePosixPath(file).suffix.lower()
    if suffix == ".json" and (file not in json_files(tree) or is_coco(tree.json(file)) or is_karpathy(tree.json(file))):
        return False
    if is_flickr30k(tree.first_line(file)):
        return False
    if tree.single and suffix != ".txt":
        return True  # errors in it are reported when it is read
    if suffix == ".parquet" and not parquet.installed():
        return False
    if suffix == ".json" and not isinstance(tree.json(file), list) and not _is_kohya(tree.json(file)):
        return False
    names, _ = _open(tree, file, columns)
    try:
        chosen = choose(names, columns, tree.root / file)
    except DataError:
        return False
    return tree.single or bool(columns.image) or chosen.image != chosen.key  # a folder's photos are not named by ids


def _files(tree: Tree, columns: Columns) -> list[str]:
    tables = tree.where(lambda file: file.suffix.lower() in SUFFIXES and file.stem.lower() != "metadata")
    return [file for file in tables if has_columns(tree, file, columns)]


def _read(tree: Tree, columns: Columns, files: list[str]) -> Listing:
    files = files or ([*tree.files] if tree.single else [])
    if not files:
        raise DataError(
            f"{tree.path}: no table with columns of paths and captions is below this folder ({', '.join(SUFFIXES)}); name the "
            "columns with --image-column and --caption-column"
        )
    if len(files) > 1 and not all(split_of_file(file) for file in files):
        raise DataError(
            f"{tree.path}: {len(files)} tables are here ({', '.join(files[:3])}) and their names tell no splits; give the path "
            "of one of them"
        )
    return read_tables(tree, files, columns)


def _below(name: str, table: str, photos: PhotoStore) -> str:
    """The path from the root of a photo that a table names from its folder; the name itself where no such photo exists."""
    path = photos.below((PurePosixPath(table).parent / name.replace("\\", "/")).as_posix())
    return name if path is None else path


def _name(row: Mapping[str, Any], column: str, place: str) -> str | bytes:
    """The photo's path or id, or its bytes where the table holds them."""
    value = row.get(column)
    if (photo := parquet.photo(value)) is not None:
        return photo
    if isinstance(value, Mapping):
        value = value.get("path")
    if value is None or value == "":
        raise DataError(f"{place}, column {column}: the photo's path is missing")
    if column.lower() in COMMON["id"]:
        return parsing.identifier(value, place)
    return parsing.text(value, f"{place}, column {column}", "path")


def _captions(row: Mapping[str, Any], columns: Sequence[str], place: str) -> list[str]:
    """The captions of a row. It may lack columns, but not all. Raises DataError."""
    captions: list[str] = []
    for column in columns:
        value, where = row.get(column), f"{place}, column {column}"
        if isinstance(value, str):
            captions += _listed(value, where)
        elif isinstance(value, list):
            captions += [parsing.text(text, where) for text in value]
        elif column in row:  # an empty cell of Parquet or JSON is an empty caption
            captions.append("" if value is None else parsing.text(value, where))
    if not any(column in row for column in columns):
        raise DataError(f"{place}, column {columns[0]}: the caption is missing")
    return captions


def _listed(text: str, place: str) -> list[str]:
    """The captions of a cell: a list of them as JSON or as Python prints it, or one caption."""
    value: Any = None
    if _PYTHON_LIST.fullmatch(text):
        try:
            value = json.loads(text)
        except ValueError:
            try:
                value = ast.literal_eval(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                value = None
            if not isinstance(value, list) or repr(value) != text:  # numpy's have no commas
                raise DataError(f"{place}: {text[:60]!r} looks like a list of captions and is none; write it as JSON") from None
        if all(isinstance(caption, str) for caption in value):
            return [parsing.text(caption, place) for caption in value]
    return [parsing.text(text, place)]


# --- the kinds of table -----------------------------------------------------------------------------------------------------


def _open(tree: Tree, file: str, columns: Columns) -> tuple[list[str], Iterable[Row]]:
    """Opens a table; returns the names of its columns, and its rows."""
    path = tree.root / file
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return parquet.columns(path), ((f"{path}, row {number + 1}", row) for number, row in parquet.rows(path))
    if suffix in (".json", ".jsonl", ".ndjson"):
        rows = tree.once(file, _json_rows)
        return list(dict.fromkeys(name for _, row in rows for name in row)), rows  # the first row may lack some
    delimiter, headed = _dialect(tree, file, columns)
    cells = parsing.table_rows(path, delimiter)
    header = _distinct(next(cells, (1, []))[1]) if headed else ["image", "caption"]
    return header, _text_rows(path, header, cells, delimiter)


def _dialect(tree: Tree, file: str, columns: Columns) -> tuple[str, bool]:
    """The delimiter of a text table, and whether its first row is a header."""
    first = tree.first_line(file)
    delimiters = "\t,;|" if file.lower().endswith(".tsv") else ",;\t|"
    for delimiter in delimiters:
        try:
            choose(_distinct(_cells(first, delimiter)), columns, Path(file))
        except DataError:
            continue
        return delimiter, True
    for delimiter in "\t,;|":  # what `showtell caption` writes has tabs
        name, *rest = _cells(first, delimiter)
        if TOKEN_LINE.fullmatch(first):
            break
        suffix = PurePosixPath(name).suffix.lower()
        if len(rest) == 1 and (suffix in PHOTO_SUFFIXES or (delimiter == "\t" and "/" in name)):
            return delimiter, False
    return delimiters[0], True


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), None) or [""]
    except csv.Error:
        return [""]


def _distinct(header: Sequence[str]) -> list[str]:
    """The names of columns, repeated ones numbered as pandas does: caption, caption.1."""
    names: list[str] = []
    for name in map(str.strip, header):
        count = sum(known.rpartition(".")[0] == name or known == name for known in names)
        names.append(f"{name}.{count}" if name in names else name)
    return names


def _text_rows(path: Path, header: list[str], rows: Iterable[tuple[int, list[str]]], delimiter: str) -> Iterator[Row]:
    for number, cells in rows:
        place = parsing.line(path, number)
        if len(cells) < len(header):
            raise DataError(f"{place}, column {header[len(cells)]}: the row is cut short; {len(header)} cells are needed")
        if len(cells) > len(header):
            remedy = "put cells that hold the delimiter in quotation marks"
            if delimiter == "\t":
                remedy = "a cell cannot hold a tab"
            raise DataError(f"{place}, column {len(header) + 1}: {len(cells)} cells under {len(header)} headings; {remedy}")
        yield place, dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _json_rows(path: Path) -> list[Row]:
    """The rows of JSON lines, of a JSON list of objects, or of a JSON object by photo as kohya's trainers write it."""
    if path.suffix.lower() != ".json":
        rows = list(parsing.json_lines(path))
    elif isinstance(value := parsing.read_json(path), list):
        rows = [(f"{path}, entry {number}", row) for number, row in enumerate(value, start=1)]
    elif _is_kohya(value):
        rows = [(f"{path}, {name}", {**row, "image": name}) for name, row in value.items()]
    else:
        kinds = "COCO's and Karpathy's have a list `images`, others are a list of objects or an object of them by photo"
        raise DataError(f"{path}: no captions are recognised; {kinds}")
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{place}: {str(row)[:60]!r} is no JSON object")
    return rows


def _is_kohya(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(row, dict) for row in value.values())


LAYOUT = Layout("table", f"a table with columns of paths and captions ({', '.join(SUFFIXES)})", _files, _read)
