"""`showtell caption` and `showtell explain`."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from showtell.cli import options
from showtell.cli.console import Console, tell
from showtell.cli.options import PATH
from showtell.errors import OptionError, OutputError
from showtell.io.streams import open_text


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@options.captioner
@options.search_options
@click.option("--sentence", is_flag=True, help="Capital letter and full stop.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "jsonl"]),
    help="Of standard output.  [default: text, or none with --output]",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Also write there: .txt or .jsonl.",
)
@click.option("--overwrite", is_flag=True, help="Replace an --output file that is there.")
@options.batch_size
@click.option("--workers", type=click.IntRange(1), show_default="as --threads", help="Threads that decode photos.")
@click.option("--lenient", is_flag=True, help="Caption what decodes of photos that are cut short or damaged.")
def caption(
    paths: tuple[str, ...],
    sentence: bool,
    format_: str | None,
    outputs: tuple[Path, ...],
    overwrite: bool,
    batch_size: int,
    workers: int | None,
    lenient: bool,
    **given: Any,
) -> int:
    """Caption photos: files, folders (recursive), or `-` for standard input: a photo, or a list of paths.

    One photo prints its caption; several print path, tab, caption. A photo that cannot be read is named on standard error and
    the others go on.
    """
    from showtell.image import ImageSettings, describe_skipped
    from showtell.io.sinks import sentences
    from showtell.io.sources import photo_paths

    skipped: Counter[str] = Counter()
    photos = photo_paths(paths, sys.stdin.buffer, skipped)
    left_out = describe_skipped(skipped)
    if not photos:
        raise click.UsageError(f"no photos in {', '.join(paths)}" + (f"; what is there: {left_out}" if left_out else ""))
    captioner = options.open_captioner(given, ImageSettings(lenient=lenient))
    search_options = captioner.options(**given)
    failed = 0
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(_output_sink(path, overwrite)) for path in outputs]
        if format_ or not outputs:
            sinks.append(_sink(format_ or "text", sys.stdout, single=len(photos) == 1))
        console = stack.enter_context(Console(shown=len(photos) > 1 and not (sys.stdout.isatty() and (format_ or not outputs))))
        records = captioner.records(photos, search_options, batch_size=batch_size, workers=workers)
        for number, record in enumerate(records, start=1):
            if record.error_code is not None:
                failed += 1
                console.message(f"showtell: {options.with_flags(str(record.error_message))} [{record.error_code}]")
            for sink in sinks:
                sink.write(sentences(record) if sentence else record)
            console.progress("captioning", number, len(photos))
    if failed and len(photos) > 1:
        tell(f"showtell: {len(photos) - failed} captioned, {failed} failed")
    if usage := getattr(captioner, "usage", None):
        tell(f"showtell: {usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} completion tokens")
    if left_out:
        tell(f"showtell: skipped in folders: {left_out}")
    if failed == len(photos):
        return options.NOTHING_DONE
    return options.SOME_FAILED if failed else options.DONE


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
    from showtell.captioners import kind_of
    from showtell.files import try_place
    from showtell.image import ImageSettings
    from showtell.runtime import explain as explaining
    from showtell.runtime import load

    if kind_of(model) != "bundle":
        raise OptionError(f"{model}: explain needs a bundle; models of other kinds give no attention")
    explaining.picture_format(output)  # a wrong suffix is said before the work
    if output.exists() and not overwrite:
        raise OutputError(f"{output}: is there already; give another file or --overwrite")
    try_place(output)
    captioner = load(model, threads=threads, device=device, images=ImageSettings(lenient=lenient))
    picture = explaining.explain(captioner, photo, captioner.options(**search))
    explaining.save(picture, output)
    return options.DONE


def _sink(kind: str, stream: TextIO, *, single: bool) -> Any:
    from showtell.io.sinks import JsonlSink, TextSink

    return JsonlSink(stream) if kind == "jsonl" else TextSink(stream, single=single)


@contextlib.contextmanager
def _output_sink(path: Path, overwrite: bool) -> Iterator[Any]:
    """A sink that writes to a file of the kind its suffix says."""
    kinds = {".txt": "text", ".tsv": "text", ".jsonl": "jsonl"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise OutputError(f"{path}: the suffix says the format and must be one of {', '.join(kinds)}")
    try:
        stream = open_text(path, "w" if overwrite else "x")
    except FileExistsError:
        raise OutputError(f"{path}: is there already; give another file or --overwrite") from None
    except OSError as error:
        raise OutputError.of(path, error) from None
    with stream:
        yield _sink(kind, stream, single=False)
