"""`showtell data`: check, convert and fetch data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from showtell.cli import options
from showtell.cli.console import Console, Group, tell
from showtell.cli.options import PATH
from showtell.files import json_text, try_place, write_json

if TYPE_CHECKING:
    pass


@click.group(cls=Group)
def data() -> None:
    """Check, convert and fetch data sets."""


@data.command()
@click.argument("source", type=PATH, metavar="DIR")
@options.reading
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Write all findings there; - is standard output.")
@click.option("--html", "html_file", type=PATH, metavar="FILE", help="Write a page with thumbnails there.")
@click.option("--ignore", multiple=True, metavar="KIND", help="A kind of finding to ignore; repeatable.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default="all cores", help="Threads.")
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
    """Check a data set: broken photos, duplicates, suspect captions, splits that overlap.

    Exit status 0: no findings; 1: findings; 2: wrong usage, or the data set cannot be read.
    """
    from showtell.data import list_entries
    from showtell.data.check.check import KINDS
    from showtell.data.check.check import check as run
    from showtell.data.check.report import print_check, write_page
    from showtell.runtime.cpu import available_cpus

    if unknown := set(ignore) - set(KINDS):
        raise click.UsageError(f"--ignore {sorted(unknown)[0]}: kinds are {', '.join(KINDS)}")
    for file in (json_file, html_file):
        if file is not None and file != Path("-"):
            try_place(file, parents=True)
    columns = options.columns_of(image_column, caption_column, split_column)
    with Console() as console:
        found = run(
            list_entries(source, layout, columns=columns), workers=workers or available_cpus(), progress=console.progress
        )
    try:
        if json_file is not None and json_file != Path("-"):
            write_json(json_file, found.to_json())
        if html_file is not None:
            write_page(found, html_file)
            tell(f"page: {html_file}")
    finally:  # findings are printed even if a file cannot be written
        if json_file == Path("-"):
            click.echo(json_text(found.to_json(), indent=2, encoding="ascii"))
        else:
            print_check(found)
    return 1 if found.wrong(ignore) else 0


@data.command()
@click.argument("source", type=PATH, metavar="SOURCE")
@click.argument("destination", type=PATH, metavar="DEST")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "coco", "webdataset"]),
    help="Format of DEST.  [default: by suffix: .jsonl, .json is COCO, .tar or a folder is WebDataset]",
)
@click.option("--split-seed", type=int, metavar="N", help="Seed of a random split, if SOURCE has no splits.")
@click.option("--overwrite", is_flag=True, help="Replace DEST if it is a file.")
@options.reading
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
    """Convert a data set to JSON lines, COCO captions or WebDataset tars."""
    from showtell.data import read
    from showtell.data.convert import convert as run
    from showtell.data.convert import format_of

    format_ = format_ or format_of(destination)
    if not destination.is_dir():  # which is refused below
        try_place(destination, parents=True)
    columns = options.columns_of(image_column, caption_column, split_column)
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
@click.argument("folder", type=PATH, metavar="DIR")
@click.option(
    "--url",
    envvar="SHOWTELL_FLICKR8K_URL",
    metavar="URL",
    help="Folder of the zip files.  [default: the releases of jbrownlee/Datasets on GitHub; $SHOWTELL_FLICKR8K_URL]",
)
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds without data before a retry."
)
@click.option("--retries", type=click.IntRange(0), default=5, show_default=True, help="Retries in a row without data.")
def fetch(name: str, folder: Path, url: str | None, timeout: float, retries: int) -> int:
    """Download a data set into DIR: flickr8k, 1.1 GB, photos for research use.

    An interrupted download resumes. Without a network, put Flickr8k_text.zip and Flickr8k_Dataset.zip into DIR and run the
    command: it checks and unpacks them.
    """
    from showtell.data.fetch.download import DownloadSettings
    from showtell.data.fetch.flickr8k import FLICKR8K_URL, fetch_flickr8k

    settings = DownloadSettings(timeout=timeout, retries=retries)
    with Console() as console:
        fetched = fetch_flickr8k(folder, url=url or FLICKR8K_URL, settings=settings, progress=console.progress)
    done = "already exists" if fetched.already else "is complete"
    tell(f"{folder}: Flickr8k {done}, {len(fetched.dataset.samples):,} photos")
    tell(f"next: showtell train flickr8k --data {folder} --output RUN_DIR")
    return 0
