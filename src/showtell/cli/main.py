"""The command line. Each command imports what it needs when it runs, so that captioning never loads torch.

Exit status 0: everything done; 1: done, but some photos failed and each is named on standard error; 2: wrong usage, nothing
could be done, or what was done cannot be written; 130: interrupted; 141: whoever read the output is gone. Captions go to
standard output, everything else to standard error.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import click

from showtell.cli.console import Console, Group, show_warnings, tell
from showtell.cli.data import columns_of, split_seed
from showtell.cli.data import data as data_commands
from showtell.cli.data import layout as _layout
from showtell.cli.data import reading as _reading
from showtell.cli.serve import serve
from showtell.errors import MissingExtraError, OptionError, OutputError, ShowtellError
from showtell.io.streams import ReaderLeftError, drop_output, open_streams, open_text
from showtell.types import DecodeOptions

if TYPE_CHECKING:
    from showtell.data import PhotoStore
    from showtell.evaluation import Evaluation

DONE, SOME_FAILED, NOTHING_DONE, INTERRUPTED, READER_LEFT = 0, 1, 2, 130, 141
_SILENCE = 30.0  # seconds without a word, at most, of a command that takes minutes


def main() -> None:
    """Entry point of the `showtell` command."""
    open_streams()
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a photo is reported once, by its error
    show_warnings()
    try:
        status = cli.main(prog_name="showtell", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        for line in shown.getvalue().splitlines():
            tell(line)
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        tell("interrupted")
        status = INTERRUPTED
    except ReaderLeftError:
        status = READER_LEFT
    except ShowtellError as error:
        tell(f"showtell: {_with_flags(str(error), names=isinstance(error, OptionError))}")
        status = NOTHING_DONE
    drop_output()
    sys.exit(status)


def _with_flags(message: str, *, names: bool = False) -> str:
    """An error in the words of the command line: `sample=True` becomes `--sample`, and with `names` so does `beam_size`."""
    commands = [*cli.commands.values(), *data_commands.commands.values()]
    options = [option for command in commands for option in command.params if isinstance(option, click.Option)]
    flags = {option.name: max(option.opts, key=len) for option in options}
    pattern = r"\b(\w+)=True\b" + (r"|\b(\w+)=(?=[ ,])|\b([a-z]+(?:_[a-z]+)+)\b|^(\w+)(?= is )" if names else "")
    return re.sub(pattern, lambda found: flags.get(found[found.lastindex or 0], found[0]), message)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="showtell")
def cli() -> None:
    """Captions images: one photo or millions, with the model inside this package or with your own."""


cli.add_command(data_commands)
cli.add_command(serve)

_path = click.Path(path_type=Path)
_model = click.option("--model", metavar="DIR_OR_NAME", help="A bundle's folder or name.  [default: the embedded model]")
_threads = click.option(
    "--threads", type=click.IntRange(0), default=0, show_default="all cores", help="Processors that the model keeps busy."
)
_device = click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
_batch_size = click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Photos at a time.")


def _search_options(command: Any) -> Any:
    """The options that change how captions are searched for; each is the bundle's unless given."""
    for option in reversed(
        (
            click.option("--beam-size", type=int, metavar="N", help="Hypotheses followed at once; 1 is greedy."),
            click.option("--num-captions", type=int, metavar="N", help="Captions of each photo, best first."),
            click.option("--max-length", type=int, metavar="N", help="Words of a caption at most."),
            click.option("--length-penalty", type=float, metavar="X", help="0 ranks by total, 1 by mean log-probability."),
            click.option("--no-repeat-ngram", type=int, metavar="N", help="Never repeat N words in a row; 0 allows it."),
            click.option(
                "--no-repeat-words/--repeat-words",
                default=None,
                help="Never say a word twice, but for those that people repeat.",
            ),
            click.option("--style", metavar="NAME", help="One of the model's caption styles, such as coco."),
            click.option("--sample", is_flag=True, default=None, help="Draw captions at random instead of searching."),
            click.option("--temperature", type=float, metavar="T", help="With --sample: below 1 safer, above 1 wilder."),
            click.option("--top-p", type=float, metavar="P", help="With --sample: only the likeliest words of mass P; 0.6."),
            click.option("--seed", type=int, metavar="N", help="With --sample: the same seed, the same captions."),
        )
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@_model
@_search_options
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
    type=_path,
    metavar="FILE",
    help="Also write there: .txt or .jsonl.",
)
@click.option("--overwrite", is_flag=True, help="Replace an --output file that is there.")
@_batch_size
@click.option("--workers", type=click.IntRange(1), show_default="as --threads", help="Threads that decode photos.")
@click.option("--lenient", is_flag=True, help="Caption what decodes of photos that are cut short or damaged.")
@_threads
@_device
def caption(
    paths: tuple[str, ...],
    model: str | None,
    sentence: bool,
    format_: str | None,
    outputs: tuple[Path, ...],
    overwrite: bool,
    batch_size: int,
    workers: int | None,
    lenient: bool,
    threads: int,
    device: Any,
    **search: Any,
) -> int:
    """Caption photos: files, folders (recursive), or `-` for standard input: a photo, or a list of paths.

    One photo prints its caption; several print path, tab, caption. A photo that cannot be read is named on standard error and
    the others go on.
    """
    from showtell.image import ImageSettings, describe_skipped
    from showtell.io.sinks import sentences
    from showtell.io.sources import photo_paths
    from showtell.runtime import load

    skipped: Counter[str] = Counter()
    photos = photo_paths(paths, sys.stdin.buffer, skipped)
    left_out = describe_skipped(skipped)
    if not photos:
        raise click.UsageError(f"no photos in {', '.join(paths)}" + (f"; what is there: {left_out}" if left_out else ""))
    captioner = load(model, threads=threads, device=device, images=ImageSettings(lenient=lenient))
    options = captioner.options(**search)
    failed = 0
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(_output_sink(path, overwrite)) for path in outputs]
        if format_ or not outputs:
            sinks.append(_sink(format_ or "text", sys.stdout, single=len(photos) == 1))
        console = stack.enter_context(Console(shown=len(photos) > 1 and not (sys.stdout.isatty() and (format_ or not outputs))))
        records = captioner.records(photos, options, batch_size=batch_size, workers=workers)
        for number, record in enumerate(records, start=1):
            if record.error_code is not None:
                failed += 1
                console.message(f"showtell: {_with_flags(str(record.error_message))} [{record.error_code}]")
            for sink in sinks:
                sink.write(sentences(record) if sentence else record)
            console.progress("captioning", number, len(photos))
    if failed and len(photos) > 1:
        tell(f"showtell: {len(photos) - failed} captioned, {failed} failed")
    if left_out:
        tell(f"showtell: skipped in folders: {left_out}")
    if failed == len(photos):
        return NOTHING_DONE
    return SOME_FAILED if failed else DONE


@cli.command()
@click.argument("recipe", metavar="RECIPE", required=False)
@click.option("--data", type=_path, multiple=True, metavar="DIR", help="A data set, in any of the usual layouts; repeatable.")
@_reading
@split_seed
@click.option("--output", type=_path, metavar="RUN_DIR", help="The run's folder.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the newest checkpoint in RUN_DIR, by its own RECIPE and --data if none are given.",
)
@click.option("--lenient", is_flag=True, help="Take what decodes of damaged photos, as --set data.lenient=true does.")
@click.option("--list", "list_", is_flag=True, help="List the recipes; with RECIPE, its keys, values and what they mean.")
def train(
    recipe: str | None,
    data: tuple[Path, ...],
    layout: str | None,
    image_column: str | None,
    caption_column: str | None,
    split_column: str | None,
    split_seed: int,
    output: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    lenient: bool,
    list_: bool,
) -> int:
    """Train a captioner by RECIPE: `flickr8k`, `debug`, or a .toml file of your own.

    For several processes or GPUs: torchrun --standalone --nproc-per-node N -m showtell train ...
    """
    with _needs("train", "training"):
        from showtell.train import recipe as recipes

    if list_:
        click.echo(recipes.describe_keys(recipes.Recipe.load(recipe, overrides)) if recipe else recipes.describe_recipes())
        return DONE
    overrides += ("data.lenient=true",) if lenient else ()
    columns = columns_of(image_column, caption_column, split_column)
    if resume and output is not None and not data:
        from showtell.train.run.folder import recall

        found = recall(output)
        data = tuple(map(Path, found["data"]))
        layout, columns, split_seed = found["layout"], columns_of(**found["columns"]), found["split_seed"]
    if resume and output is not None and recipe is None:
        recipe = str(output / "recipe.json")
    if recipe is None or not data or output is None:
        raise click.UsageError(
            "give RECIPE, --data DIR and --output RUN_DIR, or --resume and --output RUN_DIR; --list shows the recipes"
        )
    chosen = recipes.Recipe.load(recipe, overrides)
    with _needs("train", "training"):
        from showtell.train.train import train as run

    with Console(every=_SILENCE) as console:
        run(chosen, data, output, resume=resume, report=console, layout=layout, columns=columns, split_seed=split_seed)
    return DONE


@cli.command()
@click.option(
    "--data", "sets", multiple=True, type=_path, metavar="DIR", help="Caption a data set's photos and score that; repeatable."
)
@_reading
@split_seed
@click.option("--split", type=click.Choice(["train", "dev", "test"]), help="Of --data or --references.  [default: dev, or all]")
@_model
@_search_options
@click.option("--keep-scores", is_flag=True, help="With --data: write the scores into the bundle, for the service to show.")
@click.option("--candidates", type=_path, metavar="FILE", help="Score captions in a file: CSV, JSONL, COCO results and others.")
@click.option("--compare", type=_path, nargs=2, metavar="A B", help="Test whether candidate file B is better than A.")
@click.option("--references", type=_path, metavar="FILE", help="For files: any table of captions, COCO or Karpathy JSON.")
@click.option("--partial", is_flag=True, help="Score the images that both files have instead of refusing.")
@click.option("--metrics", default="bleu,rouge,cider", show_default=True, metavar="LIST", help="Also meteor, spice.")
@click.option(
    "--tokenizer",
    type=click.Choice(["ptb", "characters"]),
    default="ptb",
    show_default=True,
    help="characters: for Chinese, Japanese, Thai.",
)
@click.option("--json", "json_file", type=_path, metavar="FILE", help="Write all scores there.")
@click.option(
    "--report",
    type=_path,
    metavar="DIR",
    help="Write a page with the best and the worst photos there; of several data sets, a folder each.",
)
@click.option("--photos", type=_path, metavar="DIR", help="For --report on files: where the photos are.")
@click.option("--lenient", is_flag=True, help="With --data: caption what decodes of photos that are cut short or damaged.")
@_batch_size
@_threads
@_device
def evaluate(
    sets: tuple[Path, ...],
    layout: str | None,
    image_column: str | None,
    caption_column: str | None,
    split_column: str | None,
    split_seed: int,
    split: Any,
    model: str | None,
    keep_scores: bool,
    candidates: Path | None,
    compare: tuple[Path, Path] | None,
    references: Path | None,
    partial: bool,
    metrics: str,
    tokenizer: str,
    json_file: Path | None,
    report: Path | None,
    photos: Path | None,
    lenient: bool,
    batch_size: int,
    threads: int,
    device: Any,
    **search: Any,
) -> int:
    """Score captions against references: a model's, a file's, or two files' against each other.

    Several --data give a row each, with document frequencies of its own for CIDEr. A model with caption styles captions each in
    the style of its name, if there is one.
    """
    from showtell import evaluation as ev
    from showtell.data import PhotoStore
    from showtell.files import try_place, write_json
    from showtell.image import ImageSettings

    names = [name.strip() for name in metrics.split(",")]
    if sum(given is not None for given in (sets or None, candidates, compare)) != 1:
        raise click.UsageError("give one of --data (with --model), --candidates and --compare")
    if (references is None) != bool(sets):
        raise click.UsageError("--references goes with --candidates or --compare, and --data brings its own")
    if keep_scores and (not sets or any(value not in (None, False) for value in search.values())):
        raise click.UsageError("--keep-scores is for --data and the model's own search settings")
    if compare is not None and report is not None:
        raise click.UsageError("--report shows one set of captions: it goes with --data or --candidates")
    if json_file is not None:
        try_place(json_file)
    if report is not None and len(sets) < 2:
        ev.prepare(report)
    elif report is not None:
        try_place(report)
    if compare is not None:
        assert references is not None  # checked above
        comparison = ev.compare_files(*compare, references, names, partial=partial, split=split, tokenizer=tokenizer)
        try:
            if json_file is not None:
                write_json(json_file, comparison.to_json())
        finally:  # scores are not lost where a file cannot be written after all
            ev.print_comparison(comparison)
        return DONE
    measured: dict[str, _Measured]
    if sets:
        measured = _evaluate_model(
            sets,
            {"layout": layout, "columns": columns_of(image_column, caption_column, split_column), "split_seed": split_seed},
            split or "dev",
            names,
            model,
            search,
            tokenizer=tokenizer,
            batch_size=batch_size,
            threads=threads,
            device=device,
            images=ImageSettings(lenient=lenient),
        )
        if keep_scores:
            from showtell import bundle

            found = {name: each.evaluation.scores.corpus for name, each in measured.items()}
            bundle.keep_scores(bundle.Bundle.find(model), split or "dev", found)
    else:
        assert candidates is not None  # checked above
        assert references is not None
        result = ev.evaluate_files(candidates, references, names, partial=partial, split=split, tokenizer=tokenizer)
        measured = {result.name: _Measured(result, PhotoStore(folders=[photos]) if photos else None, 0)}
    evaluations = {name: found.evaluation for name, found in measured.items()}
    content: dict[str, Any] = {"sets": {name: evaluation.to_json() for name, evaluation in evaluations.items()}}
    if len(evaluations) == 1:
        [single] = evaluations.values()
        content = single.to_json()
    try:
        if json_file is not None:
            write_json(json_file, content)
        if report is not None:
            for name, (evaluation, store, _) in measured.items():
                folder = report if len(measured) == 1 else report / re.sub(r"[/\\]", "-", name)
                page = ev.write_report(evaluation, folder, store.read if store else None)
                tell(f"report: {page}")
    finally:
        if len(evaluations) == 1:
            ev.print_evaluation(single)
        else:
            ev.print_evaluations(evaluations)
    return SOME_FAILED if any(found.failed for found in measured.values()) else DONE


class _Measured(NamedTuple):
    """One set of captions, measured; its photos, where they are; and how many of them could not be read."""

    evaluation: Evaluation
    photos: PhotoStore | None
    failed: int


def _evaluate_model(
    paths: Sequence[Path],
    reading: dict[str, Any],
    split: Any,
    metrics: list[str],
    model: str | None,
    search: dict[str, Any],
    *,
    tokenizer: str,
    batch_size: int,
    **load: Any,
) -> dict[str, _Measured]:
    """A model's captions of the split of each data set, measured one by one, under names that tell the sets apart."""
    from showtell import evaluation as ev
    from showtell.data import read as read_dataset
    from showtell.evaluation.run import caption_split
    from showtell.runtime import load as load_model

    datasets = [read_dataset(path, **reading) for path in paths]
    for dataset in datasets:
        dataset.split(split)  # a set without this split is an error before the work
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        names = ["-".join(path.resolve().with_suffix("").parts[-2:]) for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.UsageError(f"two of the data sets are called {twice}: rename one, or evaluate them one at a time")
    captioner = load_model(model, **load)
    measured = {}
    for name, dataset in zip(names, datasets, strict=True):
        with Console(every=_SILENCE) as console:
            if note := dataset.describe_left_out():
                console.message(note)
            # Unless told otherwise, a set is captioned in the style that was learnt from a set of its name.
            own = dataset.name if dataset.name in captioner.bundle.vocabulary.styles else None
            options = captioner.options(**{**search, "style": search["style"] or own})
            run = caption_split(captioner, dataset, split, options, batch_size=batch_size, progress=console.progress)
            for reason in run.failed.values():
                console.message(f"showtell: {_with_flags(reason)}")
        training = [caption for sample in dataset.samples if sample.split == "train" for caption in sample.captions]
        title = f"{captioner.bundle.name} on {name} {split}" + (f", style {options.style}" if options.style else "")
        evaluation = ev.evaluate(
            run.candidates, run.references, metrics, name=title, training_captions=training or None, tokenizer=tokenizer
        )
        measured[name] = _Measured(evaluation, dataset.photos, len(run.failed))
    return measured


@cli.command()
@click.argument("photo", type=_path, metavar="PHOTO")
@click.option("--output", required=True, type=_path, metavar="PICTURE", help="A new .png, .jpg, .webp or .pdf file.")
@click.option("--overwrite", is_flag=True, help="Replace PICTURE if it is there.")
@_model
@_search_options
@click.option("--lenient", is_flag=True, help="Take what decodes of a photo that is cut short or damaged.")
@_threads
@_device
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
    return DONE


@cli.command()
@click.argument("checkpoints", type=_path, metavar="CHECKPOINT...", nargs=-1, required=True)
@click.option("--output", required=True, type=_path, metavar="CHECKPOINT_DIR", help="A new folder.")
def average(checkpoints: tuple[Path, ...], output: Path) -> int:
    """Write a checkpoint whose weights are the mean of others' (a run's folder stands for its best one).

    They must have gone on from one another or from one model, as epochs of a run have. What is named twice counts twice.
    """
    from showtell.files import try_place

    with _needs("train", "averaging"):
        from showtell.train.averaging import average as run
        from showtell.train.run.checkpoint import find

    if not output.exists():  # which is refused below
        try_place(output, parents=True)
    made = run([find(path) for path in checkpoints], output)
    tell(f"{made.path}: the mean of {len(checkpoints)}")
    tell(f"next: showtell export {made.path} --output BUNDLE_DIR")
    return DONE


@cli.command()
@click.argument("checkpoint", type=_path, metavar="CHECKPOINT")
@click.option("--output", required=True, type=_path, metavar="BUNDLE_DIR", help="A new folder.")
@click.option("--quantize", type=click.Choice(["none", "int8"]), default="none", show_default=True)
@click.option(
    "--calibration",
    type=_path,
    metavar="DIR",
    help="For int8: photos to measure ranges on, a folder of them or a data set (its train photos).",
)
@_layout
@click.option("--encoder", metavar="BUNDLE", help="Take this bundle's encoder as it is, by the bundle's name or folder.")
@click.option("--calibration-photos", type=click.IntRange(1), default=96, show_default=True, help="How many of them.")
@click.option("--name", help="The bundle's name.  [default: its folder's, or for `bundle` the folder's around it]")
@click.option("--licence", default="", help="Terms of the weights, kept in the bundle.")
@click.option("--card", type=_path, metavar="FILE", help="A model card in Markdown, kept in the bundle as model-card.md.")
@_search_options
def export(
    checkpoint: Path,
    output: Path,
    quantize: Any,
    calibration: Path | None,
    layout: str | None,
    calibration_photos: int,
    encoder: str | None,
    name: str | None,
    licence: str,
    card: Path | None,
    **search: Any,
) -> int:
    """Pack a checkpoint (a run's folder stands for its best one) into a bundle that runs without torch.

    The bundle searches as its recipe's validation did, unless told otherwise here.
    """
    from showtell.bundle import Bundle
    from showtell.files import try_place

    with _needs("train", "exporting"):
        from showtell.export import calibration_inputs
        from showtell.export import export as run
        from showtell.train.run.checkpoint import find

    if not output.exists():  # which is refused below
        try_place(output, parents=True)
    found = find(checkpoint)
    taken = Bundle.find(encoder) if encoder else None
    photos = []
    if calibration and (quantize == "int8" or taken):
        photos = calibration_inputs(
            found, calibration, calibration_photos, layout, lambda reason: tell(f"left out of calibration: {reason}")
        )
    options = DecodeOptions.from_json(found.config["recipe"]["validation"]).updated(**search)
    run(
        found,
        output,
        quantize=quantize,
        calibration=photos,
        encoder=taken,
        options=options,
        name=name,
        licence=licence,
        card=card,
    )
    size = sum(file.stat().st_size for file in output.iterdir())
    tell(f"{output}: {size / 1e6:.1f} MB, from {found.path}")
    tell(f"next: showtell caption PHOTO --model {output}")
    return DONE


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


@contextlib.contextmanager
def _needs(extra: str, feature: str) -> Iterator[None]:
    """Turns a missing package into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("showtell"):
            raise
        raise MissingExtraError(extra, feature) from None
