"""Training: a recipe and a data set in, a run's folder with its best checkpoint out. The loop itself is in `trainer`."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from showtell.data import Columns, joined
from showtell.data import read as read_dataset
from showtell.errors import RecipeError
from showtell.files import write_json
from showtell.train.build import build_model, limited, parameter_groups, photo_inputs
from showtell.train.finetune import Skills, in_own_style, with_replay
from showtell.train.inputs.batches import tokenized
from showtell.train.inputs.borrowing import borrowed_captions
from showtell.train.inputs.usable import usable
from showtell.train.notes import check_splits, describe_words, notes, word_changes
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.run.checkpoint import Checkpoint
from showtell.train.run.display import Reporter, Silent, summary
from showtell.train.run.folder import check_room, claimed, remember
from showtell.train.run.processes import Processes
from showtell.train.run.processes import joined as joined_processes
from showtell.train.trainer import Trainer


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
    """Trains by `recipe` on the data set in `data`, or on several together; the run's folder is `output`.

    Returns the best checkpoint. The layout of `data` is recognised unless it is named; `columns` and `split_seed` are as in
    `data.read`. Under torchrun the processes share the work; data, output and feature cache must then be where all of them see
    them. Raises OutputError where `output` cannot be written, is in use, or holds a run and `resume` is not set; RecipeError
    where it is resumed by another recipe, or styles and data sets differ in number; DataError where it is resumed with other
    captions; TrainingError where the loss is not finite or runs away.
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
            processes.from_first(None)  # nobody works before the folder is claimed
            try:
                best = _train(recipe, data, reading, output, resume, processes, report)
            except KeyboardInterrupt:
                report.message(f"stopped; go on from the newest checkpoint in {output} with --resume")
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
    datasets = []
    for folder in data:
        dataset = read_dataset(folder, **reading)
        if note := dataset.describe_left_out():
            report.message(note)
        datasets.append(limited(dataset, recipe.training.max_photos))
    dataset = joined(datasets, recipe.vocabulary.styles) if len(datasets) > 1 else datasets[0]
    dataset = usable(dataset, recipe, processes, report)
    check_splits(dataset)
    captions = tokenized(dataset.split("train"), recipe.vocabulary.text)
    with processes.first_ahead():
        borrowed = borrowed_captions(recipe, dataset, output / "borrowed.jsonl", report)
    sayable = {name: [*many, *(list(words) for words, _ in borrowed.get(name, ()))] for name, many in captions.items()}
    model, source = build_model(recipe, sayable)
    if recipe.init:
        changes = word_changes(recipe, model.vocabulary, captions)
        for note in describe_words(changes, recipe):
            report.message(note)
        if processes.first:
            write_json(output / "words.json", changes)
    old_data = recipe.finetune.old_data
    old = limited(read_dataset(Path(old_data)), recipe.training.max_photos) if old_data else None
    if old:
        old = usable(old, recipe, processes, report, ("train", "dev") if recipe.finetune.replay else ("dev",))
        old = in_own_style(old, model.vocabulary)
    dataset = in_own_style(dataset, model.vocabulary)
    if old and recipe.finetune.replay:
        dataset = with_replay(dataset, old, recipe.finetune.replay, recipe.seed)
    train_samples, dev_samples = dataset.split("train"), dataset.split("dev")
    captions = tokenized(train_samples, recipe.vocabulary.text)
    report.message(f"{len(train_samples)} train and {len(dev_samples)} dev photos, {len(model.vocabulary)} words")
    model.networks().to(processes.device)
    groups = parameter_groups(model, recipe)
    if processes.first:
        check_room(output, checkpoint.size(model, sum(p.numel() for group in groups for p in group["params"])))
    names = sorted(sample.image for sample in (*train_samples, *dev_samples))
    with processes.first_ahead():
        inputs = photo_inputs(recipe, model, dataset, names, report)

    skills = Skills(recipe, output / "finetune.json", old, processes, report)
    if recipe.needs_init == "finetune":
        skills.before(model)

    about = {"data": dataset.name, "encoder_weights": source, "recipe": recipe.model_dump()}
    if processes.first:
        about["photos_sha256"] = sha256(b"".join(map(dataset.photos.digest, names))).hexdigest()
    trainer = Trainer(recipe, model, groups, captions, borrowed, inputs, dev_samples, output, about, processes, report)
    for note in notes(dev_samples, trainer.batches.written, recipe.training.max_words):
        report.message(note)
    if resume:
        found = checkpoint.newest(output, report.message) if processes.first else None
        path = processes.from_first(found and found.path)
        if path:
            trainer.restore(checkpoint.find(path))
            if processes.first:  # it may have moved, and is that of the run
                remember(output, data, **reading)
        else:
            report.message("no checkpoint yet: starting at the beginning")
    trainer.run()
    best = checkpoint.find(processes.from_first(checkpoint.best(output).path if processes.first else output))
    if recipe.needs_init == "finetune":
        skills.after(best)
    return best
