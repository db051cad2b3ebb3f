"""`showtell caption` and `showtell explain`."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from showtell.cli import options
from showtell.cli.console import Console, tell
from showtell.cli.options import PATH
from showtell.errors import DataError, OptionError, OutputError
from showtell.types import Record

_MINUTE = 60.0  # seconds between lines of progress that do not go to a terminal
_REMOTE_WORKERS = 16
_FEW = 64  # photos at most that are listed before the first is captioned


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@options.captioner
@options.search_options
@options.confidence
@click.option("--sentence", is_flag=True, help="Capital letter and full stop.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "jsonl"]),
    help="Of standard output.  [default: text, or none with --output, --sidecar or --metadata]",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Also write a file: .txt, .jsonl, .csv, .parquet, .json (COCO results), meta_*.json (kohya), .sqlite or .html "
    "(gallery). Repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace an --output file that exists.")
@click.option(
    "--include", "only_files", multiple=True, metavar="GLOB", help="Of folders and archives, only these files. Repeatable."
)
@click.option(
    "--exclude", "not_files", multiple=True, metavar="GLOB", help="Of folders and archives, not these files. Repeatable."
)
@click.option("--image-column", metavar="NAME", help="Of a table: the column of paths.")
@click.option("--sidecar", metavar="SUFFIX", help="Also write a text file beside each photo, such as .txt.")
@click.option("--prefix", default="", metavar="TEXT", help="With --sidecar or meta_*.json: text before each caption.")
@click.option("--suffix", default="", metavar="TEXT", help="With --sidecar or meta_*.json: text behind each caption.")
@click.option(
    "--metadata",
    type=click.Choice(["embed", "xmp"]),
    help="Also write description and alt text as XMP: into JPEG, PNG and WebP files, or into an .xmp file beside each photo.",
)
@click.option(
    "--existing",
    type=click.Choice(["skip", "replace", "add"]),
    help="Photos that have a caption already, beside them, in them or in an --output file.  "
    "[default: skip beside and in photos]",
)
@click.option(
    "--run", "run_folder", type=PATH, metavar="DIR", help="Keep finished records there, so that the run can be resumed."
)
@click.option("--resume", is_flag=True, help="Continue the run in --run with its inputs and settings.")
@click.option("--retry-failed", is_flag=True, help="With --resume: caption the photos again that failed.")
@click.option(
    "--shard-size",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="With --run: records that are finished together, after 30 seconds at the latest.",
)
@options.batch_size
@click.option(
    "--workers", type=click.IntRange(1), show_default="as --threads; 16 for URLs", help="Threads that read and decode photos."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: in several processes, on one machine or many.",
)
@click.option("--address", metavar="ADDRESS", help="With --engine ray: the cluster.  [default: start Ray on this machine]")
@click.option(
    "--actors", type=click.IntRange(1), metavar="N", help="With --engine ray: processes with --threads processors each."
)
@click.option("--lenient", is_flag=True, help="Use the part that decodes of truncated or damaged photos.")
@click.pass_context
def caption(
    context: click.Context,
    /,
    paths: tuple[str, ...],
    format_: str | None,
    overwrite: bool,
    run_folder: Path | None,
    resume: bool,
    retry_failed: bool,
    shard_size: int,
    batch_size: int,
    workers: int | None,
    threads: int,
    device: str,
    requests: int | None,
    engine: str,
    address: str | None,
    actors: int | None,
    **settings: Any,
) -> int:
    """Caption photos: files, folders (recursive), tar and zip files, tables of paths, URLs, or `-` for standard input.

    Standard input is a photo or a list of paths. A photo named alone prints its caption; all else prints path, tab, caption.
    A photo that cannot be read is named on standard error and the others go on.
    """
    from showtell.archive import cluster
    from showtell.archive import run as runs
    from showtell.archive.job import without_caption
    from showtell.archive.progress import Progress
    from showtell.archive.sinks import sentences
    from showtell.archive.sources import Selection, photos
    from showtell.image import ImageSettings, describe_skipped

    given: dict[str, Any] = {
        "paths": list(paths),
        **{name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()},
    }
    given["outputs"] = [str(path) for path in given["outputs"]]
    if resume:
        given = _settings_of_run(context, run_folder, given)
    elif not paths:
        raise click.MissingParameter(param_hint="'PATH...'", param_type="argument", ctx=context)
    elif engine != "ray" and (address or actors):
        raise click.UsageError(f"{'--address' if address else '--actors'} is for --engine ray")
    elif retry_failed:
        raise click.UsageError("--retry-failed acts on a run that is resumed: add --run DIR --resume")
    elif run_folder:
        runs.check_new(run_folder)
    job = _Job(given, overwrite=overwrite, format_=format_, run_folder=run_folder)
    with contextlib.ExitStack() as stack:
        stdin: BinaryIO = sys.stdin.buffer
        listed: bytes | None = None
        if resume:
            job.run = runs.Run.resume(job.folder, job.write_beside, shard_size, retry_failed=retry_failed)
            stack.callback(job.run.close)
            for damaged in job.run.damaged:
                tell(f"showtell: {damaged}: damaged, and kept as .damaged; its photos are captioned again")
            if job.run.stdin().exists():
                stdin = stack.enter_context(open(job.run.stdin(), "rb"))
        elif run_folder and job.piped:
            listed = job.read_list(stdin)
            stdin = io.BytesIO(listed)
        selection = Selection(tuple(given["only_files"]), tuple(given["not_files"]), given["image_column"])
        sources = photos(job.paths, stdin, selection)
        if job.run:
            sources = job.run.remaining(sources)
        settled = job.open_kept(stack)
        if given["existing"] not in ("replace", "add"):
            sources = without_caption(sources, settled, job.tally)
        stopping = stack.enter_context(_stopping(run_folder is not None))
        found = job.begin(sources, stopping)
        left_out = describe_skipped(selection.skipped)
        if found is None and not job.tally.already and not job.run:
            raise click.UsageError(
                f"no photos in {', '.join(job.paths)}" + (f"; what is there: {left_out}" if left_out else "")
            )
        if found is not None or job.run:
            chosen = {**given, "threads": threads, "device": device, "requests": requests}
            images = ImageSettings(lenient=given["lenient"])
            captioner: Any
            if engine == "ray":
                own = {name: chosen[name] for name in options.CAPTIONER} | {"images": images, "threads": threads or 1}
                captioner = stack.enter_context(cluster.start(own, address, actors))
            else:
                captioner = options.open_captioner(chosen, images)
            search_options = captioner.options(**{name: given[name] for name in options.SEARCH})
            model = cluster.model_of(captioner)
            if job.run:
                runs.check_same(job.folder, job.run.manifest, {"model": model}, {"model": "the model"})
            elif run_folder:
                job.check_outputs()
                manifest = {"directory": str(Path.cwd()), "model": model, "settings": given}
                job.run = runs.Run.create(run_folder, manifest, job.write_beside, listed, shard_size)
                stack.callback(job.run.close)
            targets = job.targets(stack)
            shown = not job.single and not (job.stdout.isatty() and job.shown)
            console = stack.enter_context(Console(shown=shown, every=_MINUTE))
            job.message = console.message
            countable = not (job.piped or job.single or job.remote)
            job.progress = Progress(console, job.tally, job.paths, selection, countable=countable)
            before = job.run.tally.records if job.run else 0
            trust = options.confidence_options(given)
            for record in captioner.records(
                found or [], search_options, batch_size=batch_size, workers=workers or job.workers, confidence=trust
            ):
                if given["sentence"]:
                    record = sentences(record)
                if record.error_code is not None:
                    console.message(f"showtell: {options.with_flags(str(record.error_message))} [{record.error_code}]")
                elif record.status == "doubtful":
                    console.message(
                        f"showtell: {record.path}: no caption, as its confidence is {record.confidence:.2f} [doubtful]"
                    )
                for target in targets:
                    target.write(record)
                if not job.run:
                    job.write_beside(record)
                job.tally.add(record)
                job.progress.update(before)
            if usage := getattr(captioner, "usage", None):
                tell(f"showtell: {usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} completion tokens")
            if job.run:
                job.run.commit()
                if stopping.is_set():
                    tell(f"showtell: interrupted; {job.run.tally.records} photos are finished")
                    tell(f"showtell: resume with: showtell caption --run {shlex.quote(str(run_folder))} --resume")
                    return options.INTERRUPTED
                job.export()
    return job.summary(describe_skipped(selection.skipped))


class _Job:
    """The outputs of one command line, and its counts."""

    def __init__(self, given: dict[str, Any], *, overwrite: bool, format_: str | None, run_folder: Path | None) -> None:
        from showtell.archive.beside import Place, Sidecars
        from showtell.archive.containers import is_archive
        from showtell.archive.job import Tally
        from showtell.archive.metadata import Metadata
        from showtell.archive.progress import Progress
        from showtell.archive.run import Run
        from showtell.archive.sources import STANDARD_INPUT, is_one_photo
        from showtell.io.remote import is_remote

        self.stdout = sys.stdout
        self.paths: list[str] = given["paths"]
        self.outputs = [Path(path) for path in given["outputs"]]
        self.existing = given["existing"]
        self.overwrite, self.format = overwrite, format_
        sidecar, metadata = given["sidecar"], given["metadata"]
        if self.existing and not (self.outputs or sidecar or metadata):
            raise click.UsageError(
                "--existing acts on captions in an --output file, or beside or in photos (--sidecar, --metadata)"
            )
        if self.existing and overwrite:
            raise click.UsageError("--existing keeps an --output file and --overwrite replaces it; leave one")
        flag = "--sidecar" if sidecar else "--metadata" if metadata else ""
        for path in self.paths if flag else ():
            if is_remote(path) or is_archive(path):
                where = "at" if is_remote(path) else "in"
                raise click.UsageError(f"{flag}: photos {where} {path} have no place beside them; use --output")
        existing: Any = self.existing or "skip"
        self.places: list[Place] = []
        if sidecar:
            self.places.append(Sidecars(sidecar, given["prefix"], given["suffix"], existing))
        if metadata:
            self.places.append(Metadata(metadata, existing))
        self.single = is_one_photo(self.paths) and not run_folder
        self.shown = bool(format_) or not (self.outputs or self.places or run_folder)
        self.piped = any(path in STANDARD_INPUT or path.startswith("/dev/fd/") for path in self.paths)
        self.remote = any(map(is_remote, self.paths))
        self.tally = Tally()
        self.run: Run | None = None
        self.progress: Progress | None = None
        self.message: Callable[[str], None] = tell
        self._around = given["prefix"], given["suffix"]
        self._run_folder = run_folder
        self._kept: list[Any] = []

    @property
    def workers(self) -> int | None:
        """Threads that read photos, where more are wanted than there are processors: they wait for other machines."""
        return _REMOTE_WORKERS if self.remote else None

    @property
    def folder(self) -> Path:
        """The run directory, where there is one."""
        return self._run_folder or Path()

    def read_list(self, stdin: BinaryIO) -> bytes:
        """The list of paths on standard input, which a run keeps."""
        from showtell.archive.sources import photos
        from showtell.image import name_of

        names = list(photos(["-"], stdin))
        if any(isinstance(name, io.IOBase) for name in names) or any(path.startswith("/dev/fd/") for path in self.paths):
            raise click.UsageError("--run keeps its inputs by path: give the photo's path, or a list of paths as -")
        return b"\0".join(os.fsencode(name_of(name)) for name in names) + b"\0"

    def open_kept(self, stack: contextlib.ExitStack) -> list[Any]:
        """Opens the outputs that exist and are added to; returns what knows the photos that are captioned already."""
        from showtell.archive.kept import open_kept

        settled: list[Any] = list(self.places)
        if self.existing and not self._run_folder:
            for output in self.outputs:
                if output.exists():
                    sink, recorded = open_kept(output, self.existing)
                    stack.callback(sink.close)
                    self._kept.append(sink)
                    settled.append(recorded)
        return settled

    def begin(self, sources: Iterator[Any], stopping: threading.Event) -> Iterable[Any] | None:
        """The photos until the user stops the run, or None where there are none."""
        from showtell.archive.job import begun

        found = begun(sources, 1 if self.piped else _FEW)
        return found if found is None or not self._run_folder else itertools.takewhile(lambda _: not stopping.is_set(), found)

    def check_outputs(self) -> None:
        """Raises OutputError where the run could not write its outputs at its end."""
        from showtell.archive.sinks import check_place

        for output in self.outputs:
            check_place(output, overwrite=self.overwrite)

    def targets(self, stack: contextlib.ExitStack) -> list[Any]:
        """Everything that takes each record as it comes."""
        from showtell.archive.sinks import JsonlSink, Sink, TextSink, open_sink

        targets: list[Any] = [self.run] if self.run else [*self._kept]
        if not self.run:
            for output in self.outputs:
                if not (self.existing and output.exists()):
                    sink: Sink = open_sink(output, overwrite=self.overwrite, before=self._around[0], after=self._around[1])
                    stack.callback(sink.close)
                    targets.append(sink)
        if self.shown:
            targets.append(JsonlSink(self.stdout) if self.format == "jsonl" else TextSink(self.stdout, single=self.single))
        return targets

    def write_beside(self, record: Record) -> None:
        """Writes a record's captions beside its photo or into it; a photo that takes none is named and counted."""
        from showtell.io.remote import is_remote

        for place in self.places:
            try:
                if is_remote(record.path):
                    raise DataError(f"{record.path}: nothing is written beside a photo on another machine; use --output")
                place.write(record)
            except DataError as error:
                self.tally.unwritten += 1
                self.message(f"showtell: {error}")

    def export(self) -> None:
        """Writes the outputs of a run from its shards."""
        from showtell.archive.sinks import open_sink

        assert self.run is not None
        before, after = self._around
        for output in self.outputs:
            with contextlib.closing(open_sink(output, overwrite=True, before=before, after=after)) as sink:
                for record in self.run.records():
                    sink.write(record)

    def summary(self, left_out: str) -> int:
        """Prints the counts; returns the exit status."""
        tally, already = (self.run.tally if self.run else self.tally), self.tally.already
        if not self.single and (already or tally.failed or tally.doubtful or tally.withheld or not self.shown):
            had = f", {already:,} had a caption" if already else ""
            rate = f" in {self.progress.seconds:.1f} s ({self.progress.rate:.1f}/s)" if self.progress else ""
            tell(f"showtell: {tally.captioned:,} captioned, {tally.failed:,} failed{had}{rate}")
            counts = {"doubtful": tally.doubtful, "too doubtful, without a caption": tally.withheld}
            for what, count in counts.items():
                if count:
                    tell(f"{count:>12,}  {what}")
            for code, count in tally.errors.most_common():
                tell(f"{count:>12,}  {code}")
        if self.tally.unwritten:
            tell(f"showtell: {self.tally.unwritten:,} captions could not be written beside or into their photos")
        if left_out:
            tell(f"showtell: skipped in folders: {left_out}")
        if tally.failed == tally.records and tally.failed and not already:
            return options.NOTHING_DONE
        return options.SOME_FAILED if tally.failed or self.tally.unwritten else options.DONE


def _settings_of_run(context: click.Context, folder: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run that is resumed; those given on the command line must be the same, --output aside."""
    from showtell.archive import run as runs

    if folder is None:
        raise click.UsageError("--resume continues a run: say which with --run DIR")
    manifest = runs.read_manifest(folder)
    stated = {
        name: value
        for name, value in given.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE and name != "outputs"
    }
    if not stated.get("paths"):
        stated.pop("paths", None)
    flags = {option.name: max(option.opts, key=len) for option in context.command.params if isinstance(option, click.Option)}
    runs.check_same(folder, manifest["settings"], stated, {**flags, "paths": "the inputs"})
    settings: dict[str, Any] = given | manifest["settings"]
    runs.check_same(folder, manifest, {"directory": str(Path.cwd())}, {"directory": "the current folder"})
    return settings | ({"outputs": given["outputs"]} if given["outputs"] else {})


@contextlib.contextmanager
def _stopping(catch: bool) -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM, where they are caught; the second Ctrl-C interrupts as usual."""
    stopping = threading.Event()
    if not catch or threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def stop(number: int, _: Any) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        os.write(2, b"showtell: finishing the photos in hand; once more interrupts them\n")  # print may be interrupted itself

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.command()
@click.argument("photo", type=PATH, metavar="PHOTO")
@click.option("--output", required=True, type=PATH, metavar="PICTURE", help="A new .png, .jpg, .webp or .pdf file.")
@click.option("--overwrite", is_flag=True, help="Replace an existing PICTURE.")
@options.model
@options.search_options
@click.option("--lenient", is_flag=True, help="Use the part that decodes of a truncated or damaged photo.")
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
    """Draw the attention of a caption: the photo once for each word.

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
        raise OutputError(f"{output}: already exists; give another file or --overwrite")
    try_place(output)
    captioner = load(model, threads=threads, device=device, images=ImageSettings(lenient=lenient))
    picture = explaining.explain(captioner, photo, captioner.options(**search))
    explaining.save(picture, output)
    return options.DONE
