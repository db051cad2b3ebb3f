"""`showtell data`: check, convert and fetch data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from showtell.data import Columns

_path = click.Path(path_type=Path)
layout = click.option("--layout", metavar="NAME", help="The data set's layout, where it is not recognised (docs/data.md).")


@click.group()
def data() -> None:
    """Check, convert and fetch data sets."""


def _reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a data set is read."""
    for option in reversed(
        (
            layout,
            click.option("--image-column", metavar="NAME", help="Of a table: where the photo's path is."),
            click.option("--caption-column", metavar="NAME", help="Of a table: where a caption is; several with commas."),
            click.option("--split-column", metavar="NAME", help="Of a table: where train, dev or test is."),
        )
    ):
        command = option(command)
    return command


def _columns(image: str | None, caption: str | None, split: str | None) -> Columns:
    from showtell.data import Columns

    return Columns(image, caption, split)
