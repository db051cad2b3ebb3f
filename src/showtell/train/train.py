"""Training: from a recipe and a data set to a run's folder and its best checkpoint. The training loop is in `trainer`."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from showtell.data import Columns, Dataset, joined
from showtell.data import read as read_dataset
from showtell.errors import RecipeError
from showtell.files import write_json
from showtell.train.build import build_model, build_plan, cache_root, limited, old_dev
from showtell.train.finetune import BeforeAndAfter, in_own_style, with_replay
from showtell.train.inputs.batches import tokenized
from showtell.train.inputs.borrowing import borrowed_captions
from showtell.train.inputs.usable import usable
from showtell.train.notes import check_splits, describe_words, word_changes
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.run.checkpoint import Checkpoint
from showtell.train.run.display import Reporter, Silent, summary
from showtell.train.run.folder import claimed, remember
from showtell.train.run.processes import Processes
from showtell.train.run.processes import joined as joined_processes
from showtell.train.trainer import Trainer
from showtell.types import Split
from showtell.vocabulary import Vocabulary


def train(
    recipe: Recipe,
    data: Path | Sequence[Path],
    output: Path,
    *,
    resume: bool,
    report: Reporter,
    layout: str | None = None,
    columns: Columns | None = None,
    split_seed: int = 0,
) -> Checkpoint:
    """Trains by `recipe` on the data set in `data`, or on several together, into the run's folder `output`.

    Returns the best checkpoint. The layout of `data` is recognised unless it is named; `columns` and `split_seed` are as in
    `data.read`. Under torchrun the processes share the work; all must see data, output and feature cache. Raises OutputError
    where `output` cannot be written, is in use, or holds a run and `resume` is not set; RecipeError where it is resumed by
    another recipe, or styles and data sets differ in number; DataError where it is resumed with other captions; TrainingError
    where the loss is not finite or diverges.
    """
    started = time.monotonic()
    data = [data] if isinstance(data, Path) else data
    if recipe.vocabulary.styles and len(recipe.vocabulary.styles) != len(data):
        named = ", ".join(recipe.vocabulary.styles)
        raise RecipeError(f"vocabulary.styles names {named}: one style for each data set, and there are {len(data)}")
    with joined_processes(recipe.training.device) as processes:
        report = report if processes.first else Silent()
        with claimed(output, recipe, resume) if processes.first else nullcontext():
            reading: dict[str, Any] = {"layout": layout, "columns": columns, "split_seed": split_seed}
            if processes.first and not resume:
                remember(output, data, **reading)
            processes.from_first(None)  # the others wait until the folder is claimed
            try:
                best = _train(recipe, data, reading, output, resume, processes, report)
            except KeyboardInterrupt:
                report.message(f"stopped; --resume continues from the newest checkpoint in {output}")
                raise
            for line in summary(best, output, data, time.monotonic() - started):
                report.message(line)
            return best


def _train(
    recipe: Recipe,
    data: Sequence[Path],
    reading: dict[str, Any],
    output: Path,
    resume: bool,
    processes: Processes,
    report: Reporter,
) -> Checkpoint:
    torch.manual_seed(recipe.seed)
    dataset = _read(recipe, data, reading, ("train", "dev"), processes, report)
    check_splits(dataset)
    rule = recipe.vocabulary.text
    captions = tokenized(dataset.split("train"), rule)
    with processes.first_ahead():
        pairs = zip(recipe.vocabulary.styles or [""], recipe.text.files, strict=False)  # no files, or one for each style
        files = {style: Path(path) for style, path in pairs if path}
        borrowed = borrowed_captions(files, dataset, rule, recipe.text.captions, output / "borrowed.jsonl", report)
    model, source = build_model(
        recipe, {name: [*many, *(words for words, _ in borrowed.get(name, ()))] for name, many in captions.items()}
    )
    if recipe.init:
        old_words = Vocabulary.load(checkpoint.find(Path(recipe.init)).path / "vocab.json")
        changes = word_changes(old_words, model.vocabulary, captions)
        for note in describe_words(changes, recipe.vocabulary.min_count, added=recipe.finetune.new_words):
            report.message(note)
        if processes.first:
            write_json(output / "words.json", changes)
    dataset, old = in_own_style(dataset, model.vocabulary), None
    if recipe.finetune.old_data:
        splits: tuple[Split, ...] = ("train", "dev") if recipe.finetune.replay else ("dev",)
        old = _read(recipe, [Path(recipe.finetune.old_data)], {}, splits, processes, report)
        old = in_own_style(old, model.vocabulary)
        if recipe.finetune.replay:
            dataset = with_replay(dataset, old, recipe.finetune.replay, recipe.seed)
    model.networks().to(processes.device)
    plan = build_plan(recipe, model, source, dataset, borrowed, output, processes, report)

    comparison = None
    if recipe.finetune.active:
        measure_old = partial(old_dev, recipe, old, processes, report) if old else None
        comparison = BeforeAndAfter(output / "finetune.json", recipe.init, measure_old, processes, report)
        comparison.before(model)
    trainer = Trainer(plan, output, processes, report)
    if resume:
        newest = checkpoint.newest(output, report.message) if processes.first else None
        path = processes.from_first(newest and newest.path)
        if path:
            trainer.restore(checkpoint.find(path))
            if processes.first:  # the data may have moved
                remember(output, data, **reading)
        else:
            report.message("no checkpoint yet: starting at the beginning")
    trainer.run()
    best = checkpoint.find(processes.from_first(checkpoint.best(output).path if processes.first else output))
    if comparison:
        comparison.after(best)
    return best


def _read(
    recipe: Recipe,
    folders: Sequence[Path],
    reading: dict[str, Any],
    splits: Sequence[Split],
    processes: Processes,
    report: Reporter,
) -> Dataset:
    """The data sets in `folders`, joined, without those photos of `splits` that cannot be read."""
    datasets = []
    for folder in folders:
        dataset = read_dataset(folder, **reading)
        if note := dataset.describe_left_out():
            report.message(note)
        datasets.append(limited(dataset, recipe.training.max_photos))
    return usable(
        joined(datasets, recipe.vocabulary.styles) if len(datasets) > 1 else datasets[0],
        splits,
        images=recipe.data.images,
        skip_broken=recipe.data.skip_broken,
        cache=cache_root(recipe) if recipe.encoder.cached else None,
        processes=processes,
        report=report,
    )
