"""`showtell search`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from showtell.cli import options
from showtell.cli.options import PATH
from showtell.io.streams import one_line


@click.command()
@click.argument("database", type=PATH, metavar="DB")
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="Photos at most.")
@click.option("--format", "format_", type=click.Choice(["text", "jsonl"]), default="text", show_default=True)
def search(database: Path, words: tuple[str, ...], limit: int, format_: str) -> int:
    """Find photos by words of their captions, in a database that `showtell caption --output DB.sqlite` wrote.

    Prints path, tab, caption, the best match first. Photos with all of the words or, where there are none, with some of them.
    """
    from showtell.archive import database as captions

    for match in captions.search(database, " ".join(words), limit):
        if format_ == "jsonl":
            click.echo(json.dumps({"path": match.path, "caption": match.caption, "score": round(match.score, 6)}))
        else:
            click.echo(f"{one_line(match.path)}\t{match.caption}")
    return options.DONE
