"""`showtell evaluate`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from showtell.cli import options
from showtell.cli.console import Console, tell
from showtell.cli.options import PATH

if TYPE_CHECKING:
    from showtell.data import Dataset, PhotoStore
    from showtell.evaluation import Evaluation
    from showtell.image import ImageSettings


@click.command()
@click.option(
    "--data",
    "sets",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="Caption the photos of a data set and score the captions; repeatable.",
)
@options.reading
@options.split_seed
@click.option("--split", type=click.Choice(["train", "dev", "test"]), help="Of --data or --references.  [default: dev, or all]")
@options.captioners
@options.search_options
@click.option("--keep-scores", is_flag=True, help="With --data: store the scores in the bundle; the service shows them.")
@click.option(
    "--candidates", type=PATH, metavar="FILE", help="Score the captions in a file: CSV, JSONL, COCO results and others."
)
@click.option("--compare", type=PATH, nargs=2, metavar="A B", help="Test whether candidate file B is better than A.")
@click.option("--references", type=PATH, metavar="FILE", help="For files: any table of captions, COCO or Karpathy JSON.")
@click.option("--partial", is_flag=True, help="Score the images that both files have, instead of an error.")
@click.option("--metrics", default="bleu,rouge,cider", show_default=True, metavar="LIST", help="Also meteor, spice.")
@click.option(
    "--tokenizer",
    type=click.Choice(["ptb", "characters"]),
    default="ptb",
    show_default=True,
    help="characters: for Chinese, Japanese, Thai.",
)
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Write all scores there.")
@click.option(
    "--report",
    type=PATH,
    metavar="DIR",
    help="Write a page with the best and worst photos there; for several data sets, a folder each.",
)
@click.option("--photos", type=PATH, metavar="DIR", help="For --report on files: where the photos are.")
@click.option("--lenient", is_flag=True, help="With --data: use the part that decodes of truncated or damaged photos.")
@options.batch_size
def evaluate(
    sets: tuple[Path, ...],
    layout: str | None,
    image_column: str | None,
    caption_column: str | None,
    split_column: str | None,
    split_seed: int,
    split: Any,
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
    **given: Any,
) -> int:
    """Score the captions of a model or a file against references, or compare models or files.

    Each --data is a row of its own, with its own document frequencies for CIDEr. A model with caption styles uses the style of
    the data set's name, if it has one.
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
    models: tuple[str, ...] = given.pop("model")
    given["model"] = models[0] if models else None
    search = {key: value for key, value in given.items() if key not in options.CAPTIONER}
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
        finally:  # scores are printed even if the file cannot be written
            ev.print_comparison(comparison)
        return options.DONE
    reading = {
        "layout": layout,
        "columns": options.columns_of(image_column, caption_column, split_column),
        "split_seed": split_seed,
    }
    images = ImageSettings(lenient=lenient)
    if len(models) > 1:
        if not sets or keep_scores:
            raise click.UsageError("several --model go with --data, and without --keep-scores")
        captioners = [{**{key: given[key] for key in options.CAPTIONER}, "model": model, "images": images} for model in models]
        return _compare_models(
            sets, reading, split or "dev", names, captioners, search, tokenizer, batch_size, json_file, report
        )
    measured: dict[str, _Measured]
    if sets:
        measured = _evaluate_model(
            sets,
            reading,
            split or "dev",
            names,
            given,
            images,
            tokenizer=tokenizer,
            batch_size=batch_size,
        )
        if keep_scores:
            from showtell import bundle

            found = {name: each.evaluation.scores.corpus for name, each in measured.items()}
            bundle.keep_scores(bundle.Bundle.find(models[0] if models else None), split or "dev", found)
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
    return options.SOME_FAILED if any(found.failed for found in measured.values()) else options.DONE


class _Measured(NamedTuple):
    """Scores of one set of captions, its photos if they are there, and the number of unreadable photos."""

    evaluation: Evaluation
    photos: PhotoStore | None
    failed: int


def _compare_models(
    paths: Sequence[Path],
    reading: dict[str, Any],
    split: Any,
    metrics: list[str],
    captioners: Sequence[dict[str, Any]],
    search: dict[str, Any],
    tokenizer: str,
    batch_size: int,
    json_file: Path | None,
    report: Path | None,
) -> int:
    """Captions each data set with each model, one after the other, and prints a leaderboard for each set."""
    from showtell import evaluation as ev
    from showtell.evaluation import leaderboard
    from showtell.files import write_json

    datasets = _read_sets(paths, reading, split)
    boards: dict[str, list[leaderboard.Entry]] = {}
    with Console(every=options.SILENCE) as console:
        for path, (name, dataset) in zip(paths, datasets.items(), strict=True):
            training = [caption for sample in dataset.samples if sample.split == "train" for caption in sample.captions]
            measured = []
            for number, captioner in enumerate(captioners):
                console.progress(f"{name}: {captioner['model']}", number, len(captioners))
                each = leaderboard.apart(leaderboard.measure, captioner, search, path, reading, split, batch_size)
                evaluation = ev.evaluate(
                    each.run.candidates,
                    each.run.references,
                    metrics,
                    name=captioner["model"],
                    training_captions=training or None,
                    tokenizer=tokenizer,
                )
                measured.append((evaluation, each))
            boards[name] = leaderboard.ranked(measured)
    try:
        if json_file is not None:
            write_json(json_file, leaderboard.to_json(boards))
        if report is not None:
            for name, entries in boards.items():
                folder = report if len(boards) == 1 else report / re.sub(r"[/\\]", "-", name)
                page = leaderboard.write_leaderboard(f"{name} {split}", entries, folder, datasets[name].photos.read)
                tell(f"report: {page}")
    finally:  # scores are printed even if a file cannot be written
        for name, entries in boards.items():
            leaderboard.print_leaderboard(f"{name} {split}", entries)
    failed = any(entry.measured.run.failed for entries in boards.values() for entry in entries)
    return options.SOME_FAILED if failed else options.DONE


def _read_sets(paths: Sequence[Path], reading: dict[str, Any], split: Any) -> dict[str, Dataset]:
    """The data sets, each of which has the split, under names that tell them apart."""
    from showtell.data import read as read_dataset

    datasets = [read_dataset(path, **reading) for path in paths]
    for dataset in datasets:
        dataset.split(split)  # a set without this split is an error before the work
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        names = ["-".join(path.resolve().with_suffix("").parts[-2:]) for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.UsageError(f"two of the data sets are called {twice}: rename one, or evaluate them one at a time")
    return dict(zip(names, datasets, strict=True))


def _evaluate_model(
    paths: Sequence[Path],
    reading: dict[str, Any],
    split: Any,
    metrics: list[str],
    given: dict[str, Any],
    images: ImageSettings,
    *,
    tokenizer: str,
    batch_size: int,
) -> dict[str, _Measured]:
    """Captions the split of each data set with a model and scores it. Keys are names that tell the sets apart."""
    from showtell import evaluation as ev
    from showtell.evaluation.run import caption_split

    datasets = _read_sets(paths, reading, split)
    captioner = options.open_captioner(given, images)
    measured = {}
    for name, dataset in datasets.items():
        with Console(every=options.SILENCE) as console:
            if note := dataset.describe_left_out():
                console.message(note)
            # By default the style is the one of the data set's name.
            own = dataset.name if dataset.name in captioner.styles else None
            search_options = captioner.options(**{**given, "style": given["style"] or own})
            run = caption_split(captioner, dataset, split, search_options, batch_size=batch_size, progress=console.progress)
            for reason in run.failed.values():
                console.message(f"showtell: {options.with_flags(reason)}")
        training = [caption for sample in dataset.samples if sample.split == "train" for caption in sample.captions]
        style = getattr(search_options, "style", "")
        title = f"{captioner.name} on {name} {split}" + (f", style {style}" if style else "")
        evaluation = ev.evaluate(
            run.candidates, run.references, metrics, name=title, training_captions=training or None, tokenizer=tokenizer
        )
        measured[name] = _Measured(evaluation, dataset.photos, len(run.failed))
    return measured
