"""Reads Parquet files: the rows of a table, and the photos in a column, as in data sets of the Hugging Face Hub."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from showtell.errors import DataError, MissingExtraError


def installed() -> bool:
    """Whether the extra that reads Parquet is installed."""
    return find_spec("pyarrow") is not None


def columns(path: Path) -> list[str]:
    """The names of a file's columns. Raises DataError where it is no Parquet file, MissingExtraError without the extra."""
    return [str(name) for name in _open(path).schema_arrow.names]


def rows(path: Path | str, file: Any = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file, by their number from 0; of `file` where it is open already. Raises DataError where it is broken."""
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in _open(path, file).iter_batches(batch_size=64):  # rows may hold photos
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, after row {number}: broken Parquet ({error})") from None


def photo(value: Any) -> bytes | None:
    """The photo in a cell's value, bytes or the Hub's `{"bytes", "path"}`; None for other values."""
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return data if isinstance(data, bytes) else None


def photo_name(value: Any, number: int) -> str:
    """The name of a photo in row `number`: the row, and the file name where the cell has one."""
    path = value.get("path") if isinstance(value, Mapping) else None
    return f"{number:06}/{path.rsplit('/', 1)[-1]}" if path else f"{number:06}"


def photos(path: Path) -> Iterator[tuple[str, str, int, int]]:
    """The photos within a file: column, name, number of the row from 0 and length in bytes."""
    for number, row in rows(path):
        for column, value in row.items():
            if (data := photo(value)) is not None:
                yield column, photo_name(value, number), number, len(data)


def cell(path: Path, column: str, number: int) -> bytes:
    """The photo in a cell. Raises OSError where the file has changed."""
    try:
        file = _open(path)
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if number < count:
                return photo(_group(path, column, group)[number].as_py()) or b""
            number -= count
    except (DataError, IndexError) as error:
        raise OSError(str(error)) from None
    raise OSError("the file has fewer rows than before")


@lru_cache(maxsize=2)  # photos are mostly read in order, and a group is decoded as a whole
def _group(path: Path, column: str, group: int) -> Any:
    return _open(path).read_row_group(group, columns=[column])[column]


def _open(path: Path | str, file: Any = None) -> Any:
    if not installed():
        raise MissingExtraError("parquet", f"{path}: reading Parquet")
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(file or path)
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None
