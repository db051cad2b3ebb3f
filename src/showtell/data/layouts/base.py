"""What a layout is."""

from collections.abc import Callable
from dataclasses import dataclass

from showtell.data.dataset import Listing
from showtell.data.tree import Tree


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; None is recognised by the common names."""

    image: str | None = None
    caption: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Layout:
    """`sign` says in words what `detect` looks for. `read` raises DataError where a file is broken."""

    name: str
    sign: str
    detect: Callable[[Tree, Columns], bool]
    read: Callable[[Tree, Columns], Listing]
