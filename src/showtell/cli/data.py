"""`showtell data`: check, convert and fetch data sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from showtell.cli.console import Console, Group, tell
from showtell.files import try_place

if TYPE_CHECKING:
    from showtell.data import Columns

_path = click.Path(path_type=Path)
layout = click.option("--layout", metavar="NAME", help="The data set's layout, where it is not recognised (docs/data.md).")

split_seed = click.option(
    "--split-seed", type=int, default=0, show_default=True, metavar="N", help="Draw splits with this seed where there are none."
)


@click.group(cls=Group)
def data() -> None:
    """Check, convert and fetch data sets."""


def reading(command: Callable[..., Any]) -> Callable[..., Any]:
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


def columns_of(image: str | None, caption: str | None, split: str | None) -> Columns:
    from showtell.data import Columns

    return Columns(image, caption, split)


@data.command()
@click.argument("source", type=_path, metavar="DIR")
@reading
@click.option("--json", "json_file", type=_path, metavar="FILE", help="Write all findings there; - is standard output.")
@click.option("--html", "html_file", type=_path, metavar="FILE", help="Write a page with thumbnails there.")
@click.option("--ignore", multiple=True, metavar="KIND", help="A kind of finding that is not wrong here; repeatable.")
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="all cores", help="Threads.")
def check(
    source: Path,
    layout: str | None,
    image_column: str | None,
    caption_column: str | None,
    split_column: str | None,
    json_file: Path | None,
    html_file: Path | None,
    ignore: tuple[str, ...],
    workers: int,
) -> int:
    """Find what may be wrong with a data set's photos, captions and splits.

    Exit status 0: nothing; 1: something was found; 2: wrong usage, or the data set cannot be read.
    """
    from showtell.data import list_entries
    from showtell.data.check.check import KINDS
    from showtell.data.check.check import check as run
    from showtell.data.check.report import print_check, to_json, write_json, write_page

    if unknown := set(ignore) - set(KINDS):
        raise click.UsageError(f"--ignore {sorted(unknown)[0]}: kinds are {', '.join(KINDS)}")
    for file in (json_file, html_file):
        if file is not None and file != Path("-"):
            try_place(file, parents=True)
    columns = columns_of(image_column, caption_column, split_column)
    with Console() as console:
        found = run(list_entries(source, layout, columns=columns), workers=workers, progress=console.progress)
    try:
        if json_file is not None and json_file != Path("-"):
            write_json(found, json_file)
        if html_file is not None:
            write_page(found, html_file)
            tell(f"page: {html_file}")
    finally:  # what was found is not lost where a file cannot be written after all
        if json_file == Path("-"):
            click.echo(to_json(found))
        else:
            print_check(found)
    return 1 if found.wrong(ignore) else 0


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
@reading
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
    if not destination.is_dir():  # which is refused below
        try_place(destination, parents=True)
    columns = columns_of(image_column, caption_column, split_column)
    dataset = read(source, layout, columns=columns, split_seed=split_seed)
    with Console() as console:
        if note := dataset.describe_left_out():
            console.message(note)
        failed = run(dataset, destination, format_, overwrite=overwrite, progress=console.progress)
        for reason in failed:
            console.message(f"showtell: {reason}")
    captions = sum(len(sample.captions) for sample in dataset.samples)
    tell(f"{destination}: {len(dataset.samples) - len(failed)} photos, {captions} captions ({format_})")
    return 1 if failed else 0


@data.command()
@click.argument("name", type=click.Choice(["flickr8k"]))
@click.argument("folder", type=_path, metavar="DIR")
@click.option(
    "--url",
    envvar="SHOWTELL_FLICKR8K_URL",
    metavar="URL",
    help="Where the zip files are.  [default: the releases of jbrownlee/Datasets on GitHub; $SHOWTELL_FLICKR8K_URL]",
)
@click.option("--timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds of silence at most.")
@click.option("--retries", type=click.IntRange(0), default=5, show_default=True, help="Tries in a row that bring nothing.")
def fetch(name: str, folder: Path, url: str | None, timeout: float, retries: int) -> int:
    """Download a data set into DIR: flickr8k, 1.1 GB, photos for research use.

    A download that broke off resumes where it stopped. Without a network, put Flickr8k_text.zip and Flickr8k_Dataset.zip into
    DIR and run this: they are checked and unpacked.
    """
    from showtell.data.fetch.download import DownloadSettings
    from showtell.data.fetch.flickr8k import FLICKR8K_URL, fetch_flickr8k

    settings = DownloadSettings(timeout=timeout, retries=retries)
    with Console() as console:
        fetched = fetch_flickr8k(folder, url=url or FLICKR8K_URL, settings=settings, progress=console.progress)
    what = "already exists" if fetched.already else "is complete"
    tell(f"{folder}: Flickr8k {what}, {len(fetched.dataset.samples):,} photos")
    tell(f"next: showtell train flickr8k --data {folder} --output RUN_DIR")
    return 0
