"""`showtell alt`."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

import click

from showtell.cli import options
from showtell.cli.console import Console, tell
from showtell.cli.options import PATH


@click.command()
@click.argument("site", type=PATH, metavar="SITE_DIR")
@options.model
@options.search_options
@click.option("--write", is_flag=True, help="Write the alt texts into the files.")
@options.threads
@options.device
def alt(site: Path, model: str | None, write: bool, threads: int, device: Any, **search: Any) -> int:
    """Propose alt text for images without it in HTML, Markdown and notebooks, as a diff.

    Text that exists is never changed, and neither is alt="", which marks an image as decoration. Review what is proposed: a
    caption says what is in the photo, not why it is there.
    """
    from showtell.archive.alt import Site
    from showtell.archive.sinks import sentences
    from showtell.image import describe_skipped
    from showtell.runtime import load

    found = Site(site)
    documents = list(found.documents())
    sources = {image.name: image.source for document in documents for image in document.images}
    captions: dict[str, str] = {}
    failed = 0
    if sources:
        captioner = load(model, threads=threads, device=device)
        search_options = captioner.options(**search)
        with Console(shown=len(sources) > 1) as console:
            records = captioner.records(list(sources.values()), search_options)
            for number, (name, record) in enumerate(zip(sources, records, strict=True), start=1):
                if record.error_code is not None:
                    failed += 1
                    console.message(f"showtell: {options.with_flags(str(record.error_message))} [{record.error_code}]")
                else:
                    captions[name] = str(sentences(record).caption)
                console.progress("captioning", number, len(sources))
    filled = 0
    for document in documents:
        filled += sum(image.name in captions for image in document.images)
        text = document.with_captions(captions)
        if text == document.before:
            continue
        before, after = (value.splitlines(keepends=True) for value in (document.before, text))
        for line in difflib.unified_diff(before, after, f"a/{document.path}", f"b/{document.path}"):
            sys.stdout.write(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
        if write:
            document.write(text)
    tell(f"showtell: {'wrote' if write else 'propose'} {filled} alt texts in {len(documents)} files")
    if left_out := describe_skipped(found.skipped):
        tell(f"showtell: left out: {left_out}")
    if filled and not write:
        tell("showtell: nothing is written; add --write")
    if failed:
        return options.SOME_FAILED if captions else options.NOTHING_DONE
    return options.DONE
