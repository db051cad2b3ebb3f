"""`showtell caption` and `showtell explain`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, cast

import click

from showtell.cli import options
from showtell.cli.console import Console, tell
from showtell.cli.options import PATH
from showtell.errors import OutputError

_FEW = 64  # photos at most that are listed before the first is captioned


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@options.model
@options.search_options
@click.option("--sentence", is_flag=True, help="Capital letter and full stop.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "jsonl"]),
    help="Of standard output.  [default: text, or none with --output or --sidecar]",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Also write a file: .txt, .jsonl, .csv, .parquet, .json (COCO results), .sqlite or .html (gallery). Repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace an --output file that exists.")
@click.option("--include", multiple=True, metavar="GLOB", help="Of folders and archives, only these files. Repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Of folders and archives, not these files. Repeatable.")
@click.option("--image-column", metavar="NAME", help="Of a table: the column of paths.")
@click.option("--sidecar", metavar="SUFFIX", help="Also write a text file beside each photo, such as .txt.")
@click.option("--prefix", default="", metavar="TEXT", help="With --sidecar: text before each caption.")
@click.option("--suffix", default="", metavar="TEXT", help="With --sidecar: text behind each caption.")
@click.option(
    "--existing",
    type=click.Choice(["skip", "replace", "add"]),
    help="Photos that have a caption already, beside them or in an --output file.  [default: skip beside photos]",
)
@options.batch_size
@click.option("--workers", type=click.IntRange(1), show_default="as --threads", help="Threads that decode photos.")
@click.option("--lenient", is_flag=True, help="Caption what decodes of photos that are cut short or damaged.")
@options.threads
@options.device
def caption(
    paths: tuple[str, ...],
    model: str | None,
    sentence: bool,
    format_: str | None,
    outputs: tuple[Path, ...],
    overwrite: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    image_column: str | None,
    sidecar: str | None,
    prefix: str,
    suffix: str,
    existing: Any,
    batch_size: int,
    workers: int | None,
    lenient: bool,
    threads: int,
    device: Any,
    **search: Any,
) -> int:
    """Caption photos: files, folders (recursive), tar and zip files, tables of paths, or `-` for standard input.

    Standard input is a photo or a list of paths. A photo named alone prints its caption; all else prints path, tab, caption.
    A photo that cannot be read is named on standard error and the others go on.
    """
    from showtell.archive.beside import Place, Sidecars
    from showtell.archive.containers import is_archive
    from showtell.archive.job import Settled, Tally, begun, without_caption
    from showtell.archive.kept import open_kept
    from showtell.archive.sinks import JsonlSink, Sink, TextSink, open_sink, sentences
    from showtell.archive.sources import STANDARD_INPUT, Selection, is_one_photo, photos
    from showtell.image import ImageSettings, describe_skipped
    from showtell.runtime import load

    if existing and not (outputs or sidecar):
        raise click.UsageError("--existing acts on captions in an --output file or beside photos (--sidecar)")
    if existing and overwrite:
        raise click.UsageError("--existing keeps an --output file and --overwrite replaces it; leave one")
    if sidecar and (archive := next(filter(is_archive, paths), None)):
        raise click.UsageError(f"--sidecar: photos in {archive} have no place beside them; use --output")
    places = [Sidecars(sidecar, prefix, suffix, existing or "skip")] if sidecar else []
    selection = Selection(include, exclude, image_column)
    tally = Tally()
    single = is_one_photo(paths)
    shown = bool(format_) or not (outputs or places)
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        settled: list[Settled] = list(places)
        for output in outputs:
            if existing and output.exists():
                sink, recorded = open_kept(output, existing)
                stack.callback(sink.close)
                sinks.append(sink)
                settled.append(recorded)
        sources = photos(paths, sys.stdin.buffer, selection)
        if existing not in ("replace", "add"):
            sources = without_caption(sources, settled, tally)
        waits = any(path in STANDARD_INPUT or path.startswith("/dev/fd/") for path in paths)
        found = begun(sources, 1 if waits else _FEW)
        left_out = describe_skipped(selection.skipped)
        if found is None and not tally.already:
            raise click.UsageError(f"no photos in {', '.join(paths)}" + (f"; what is there: {left_out}" if left_out else ""))
        if found is not None:
            captioner = load(model, threads=threads, device=device, images=ImageSettings(lenient=lenient))
            search_options = captioner.options(**search)
            for output in outputs:
                if not (existing and output.exists()):
                    sinks.append(open_sink(output, overwrite=overwrite))
                    stack.callback(sinks[-1].close)
            if shown:
                sinks.append(JsonlSink(sys.stdout) if format_ == "jsonl" else TextSink(sys.stdout, single=single))
            console = stack.enter_context(Console(shown=not single and not (sys.stdout.isatty() and shown)))
            records = captioner.records(cast(Any, found), search_options, batch_size=batch_size, workers=workers)
            targets: list[Sink | Place] = [*sinks, *places]
            for record in records:
                if sentence:
                    record = sentences(record)
                if record.error_code is not None:
                    console.message(f"showtell: {options.with_flags(str(record.error_message))} [{record.error_code}]")
                for target in targets:
                    target.write(record)
                tally.add(record)
                console.progress("captioning", tally.records, tally.records)
    if tally.already or (tally.failed and not single):
        already = f", {tally.already} had a caption" if tally.already else ""
        tell(f"showtell: {tally.captioned} captioned, {tally.failed} failed{already}")
    if left_out := describe_skipped(selection.skipped):
        tell(f"showtell: skipped in folders: {left_out}")
    if tally.failed and not tally.captioned and not tally.already:
        return options.NOTHING_DONE
    return options.SOME_FAILED if tally.failed else options.DONE


@click.command()
@click.argument("photo", type=PATH, metavar="PHOTO")
@click.option("--output", required=True, type=PATH, metavar="PICTURE", help="A new .png, .jpg, .webp or .pdf file.")
@click.option("--overwrite", is_flag=True, help="Replace PICTURE if it is there.")
@options.model
@options.search_options
@click.option("--lenient", is_flag=True, help="Take what decodes of a photo that is cut short or damaged.")
@options.threads
@options.device
def explain(
    photo: Path,
    output: Path,
    overwrite: bool,
    model: str | None,
    lenient: bool,
    threads: int,
    device: Any,
    **search: Any,
) -> int:
    """Draw where the model looked: the photo once for each word of its caption.

    With --num-captions the further captions follow below, each with its own words.
    """
    from showtell.files import try_place
    from showtell.image import ImageSettings
    from showtell.runtime import explain as explaining
    from showtell.runtime import load

    explaining.picture_format(output)  # a wrong suffix is said before the work
    if output.exists() and not overwrite:
        raise OutputError(f"{output}: is there already; give another file or --overwrite")
    try_place(output)
    captioner = load(model, threads=threads, device=device, images=ImageSettings(lenient=lenient))
    picture = explaining.explain(captioner, photo, captioner.options(**search))
    explaining.save(picture, output)
    return options.DONE
