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


@data.command()
@click.argument("source", type=_path, metavar="SOURCE")
@click.argument("destination", type=_path, metavar="DEST")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "coco", "webdataset"]),
    help="Of DEST.  [default: by its suffix: .jsonl, .json is COCO, .tar or a folder is WebDataset]",
)
@click.option("--split-seed", type=int, metavar="N", help="Draw splits with this seed where SOURCE has none.")
@click.option("--overwrite", is_flag=True, help="Replace DEST where it is a file.")
@_reading
def convert(
    source: Path,
    destination: Path,
    format_: Any,
    split_seed: int | None,
    overwrite: bool,
    layout: str | None,
    image_column: str | None,
    caption_column: str | None,
    split_column: str | None,
) -> int:
    """Write a data set anew: JSON lines, COCO captions or WebDataset tars."""
    from showtell.data import read
    from showtell.data.convert import convert as run
    from showtell.data.convert import format_of

    format_ = format_ or format_of(destination)
    columns = _columns(image_column, caption_column, split_column)
    dataset = read(source, layout, columns=columns, split_seed=split_seed)
    with Console() as console:
        if note := dataset.describe_left_out():
            console.message(note)
        failed = run(
            dataset,
            destination,
            format_,
            overwrite=overwrite,
            progress=lambda done, total: console.progress("converting", done, total),
        )
        for reason in failed:
            console.message(f"showtell: {reason}")
    captions = sum(len(sample.captions) for sample in dataset.samples)
    click.echo(f"{destination}: {len(dataset.samples) - len(failed)} photos, {captions} captions ({format_})", err=True)
    return 1 if failed else 0
