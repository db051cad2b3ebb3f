"""The interface of a layout."""

from collections.abc import Callable
from dataclasses import dataclass

from showtell.data.dataset import Listing
from showtell.data.tree import Tree


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; None means one of the common names."""

    image: str | None = None
    caption: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Layout:
    """A form that data sets come in.

    `sign` describes the files that `files` finds: without one, the data has another layout. `read` reads them; a layout that is
    named by the user may have to read without. It raises DataError where a file is missing or broken.
    """

    name: str
    sign: str
    files: Callable[[Tree, Columns], list[str]]
    read: Callable[[Tree, Columns, list[str]], Listing]
