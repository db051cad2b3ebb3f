"""Tables with a column of paths and one or more of captions: CSV, TSV, JSON lines and Parquet.

    image,caption,split
    photos/dog.jpg,A dog runs.,train

A photo may have several rows, several columns (caption_1, caption_2) or, in JSON lines and Parquet, a list of captions. Splits
come from a column or from the files' names (train.csv, val.csv).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from showtell.data import parsing
from showtell.data.dataset import Listing
from showtell.data.entries import Entry, as_split, split_of_file
from showtell.data.layouts.base import Columns, Layout
from showtell.data.photos import PhotoStore
from showtell.data.tree import Tree
from showtell.errors import DataError, MissingExtraError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
IMAGE_COLUMNS = (
    "image",
    "path",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image_path",
    "image_file",
    "image_name",
    "img",
    "photo",
    "file",
)
CAPTION_COLUMNS = ("caption", "captions", "text", "description", "sentence", "sentences", "comment", "alt_text", "alt")
SPLIT_COLUMNS = ("split",)
_NUMBERED = re.compile(r"(caption|text|description|sentence|comment)[_ -]?\d+")


@dataclass(frozen=True)
class Chosen:
    """The columns of one table that are read."""

    image: str
    captions: tuple[str, ...]
    split: str | None


def read_tables(tree: Tree, files: Sequence[str], columns: Columns) -> Listing:
    """The rows of tables whose paths are relative to the table's own folder or to the root, or are file names."""
    photos = tree.photos()
    entries: list[Entry] = []
    failed: list[str] = []
    for file in files:
        path = tree.root / file
        chosen = choose(_columns(path), columns, path)
        file_split = split_of_file(file)
        for place, row in _rows(path):
            if row.get("status") == "error":  # a record of a photo that could not be captioned
                failed.append(str(row.get(chosen.image)))
                continue
            name = _name(row, chosen.image, place)
            captions = [text for column in chosen.captions for text in _captions(row, column, place)]
            split = as_split(row.get(chosen.split), f"{place}, column {chosen.split}") if chosen.split else None
            entries.append(Entry(place, _below(name, file, photos), captions, split or file_split))
    return Listing(tree.name, tree.root, entries, photos, {"rows tell of photos that could not be captioned": failed})


def choose(names: Sequence[str], columns: Columns, path: Path) -> Chosen:
    """Which columns of a table hold what. Raises DataError where one cannot be told or is not there."""
    image = columns.image or next((name for common in IMAGE_COLUMNS for name in names if name.lower() == common), None)
    if columns.caption:
        captions: tuple[str, ...] = tuple(name.strip() for name in columns.caption.split(","))
    else:
        common = next((name for common in CAPTION_COLUMNS for name in names if name.lower() == common), None)
        captions = (common,) if common else tuple(name for name in names if _NUMBERED.fullmatch(name.lower()))
    split = columns.split or next((name for name in names if name.lower() in SPLIT_COLUMNS), None)
    have = f"the columns are {', '.join(names) or 'none'}"
    if image is None:
        raise DataError(f"{path}, line 1: no column of paths is recognised; {have}; name it with --image-column")
    if not captions:
        raise DataError(f"{path}, line 1: no column of captions is recognised; {have}; name it with --caption-column")
    for name in (image, *captions, *([split] if split else [])):
        if name not in names:
            raise DataError(f"{path}, line 1: there is no column {name!r}; {have}")
    return Chosen(image, captions, split)


def has_columns(tree: Tree, file: str, columns: Columns) -> bool:
    """Whether a file can be read as a table, as far as its first row tells. Raises DataError where that is broken."""
    path = tree.root / file
    if path.suffix.lower() in (".csv", ".tsv") and "|" in tree.first_line(file):
        return False
    if tree.single:
        return True  # what is wrong with it is said when it is read
    if path.suffix.lower() == ".parquet" and not has_parquet():
        return False
    names = _columns(path)
    try:
        choose(names, columns, path)
    except DataError:
        return False
    return True


def _files(tree: Tree, columns: Columns) -> list[str]:
    tables = tree.where(lambda file: file.suffix.lower() in SUFFIXES and file.stem.lower() != "metadata")
    return [file for file in tables if has_columns(tree, file, columns)]


def _detect(tree: Tree, columns: Columns) -> bool:
    return bool(_files(tree, columns))


def _read(tree: Tree, columns: Columns) -> Listing:
    files = _files(tree, columns) or ([*tree.files] if tree.single else [])
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
    """The path from the root of a photo that a table names from its own folder; the name itself where there is none such."""
    path = photos.below((PurePosixPath(table).parent / name.replace("\\", "/")).as_posix())
    return name if path is None else path


def _name(row: Mapping[str, Any], column: str, place: str) -> str:
    value = row.get(column)
    if isinstance(value, Mapping | bytes):
        raise DataError(f"{place}, column {column}: holds the photo itself; only tables that give paths are read")
    if value is None or value == "":
        raise DataError(f"{place}, column {column}: the photo's path is missing")
    return parsing.text(value, f"{place}, column {column}", "path")


def _captions(row: Mapping[str, Any], column: str, place: str) -> list[str]:
    value = row.get(column)
    place = f"{place}, column {column}"
    if column not in row:
        raise DataError(f"{place}: the caption is missing")
    if isinstance(value, list):
        return [parsing.text(text, place) for text in value]
    return ["" if value is None else parsing.text(value, place)]  # an empty cell of Parquet or JSON is an empty caption


# --- the kinds of table -----------------------------------------------------------------------------------------------------


def _columns(path: Path) -> list[str]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return [str(name) for name in _parquet(path).schema_arrow.names]
    if suffix in (".jsonl", ".ndjson"):
        place, first = next(parsing.json_lines(path), ("", {}))
        if not isinstance(first, dict):
            raise DataError(f"{place}: {str(first)[:60]!r} is no JSON object")
        return list(first)
    return [name.strip() for name in next(parsing.csv_rows(path, _delimiter(path)), (1, []))[1]]


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path)
    return _json_rows(path) if suffix in (".jsonl", ".ndjson") else _csv_rows(path)


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = parsing.csv_rows(path, _delimiter(path))
    header = [name.strip() for name in next(rows)[1]]
    for number, cells in rows:
        place = parsing.line(path, number)
        if len(cells) < len(header):
            raise DataError(f"{place}, column {header[len(cells)]}: the row is cut short; {len(header)} cells are needed")
        if len(cells) > len(header):
            remedy = "put cells that hold the delimiter in quotation marks"
            raise DataError(f"{place}, column {len(header) + 1}: {len(cells)} cells under {len(header)} headings; {remedy}")
        yield place, dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for place, row in parsing.json_lines(path):
        if not isinstance(row, dict):
            raise DataError(f"{place}: {str(row)[:60]!r} is no JSON object")
        yield place, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in _parquet(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, behind row {number}: broken Parquet ({error})") from None


def _parquet(path: Path) -> Any:
    if not has_parquet():
        raise MissingExtraError("parquet", f"{path}: reading Parquet")
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None


def has_parquet() -> bool:
    """Whether the extra that reads Parquet is installed."""
    return find_spec("pyarrow") is not None


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


LAYOUT = Layout("table", f"a table with columns of paths and captions ({', '.join(SUFFIXES)})", _detect, _read)
