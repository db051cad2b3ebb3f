"""Training: cached grid features and captions in, checkpoints out.

Teacher-forced cross-entropy with label smoothing (Szegedy et al. 2016), AdamW (Loshchilov and Hutter 2019) under a one-cycle
cosine schedule (Smith and Topin 2019); after each epoch the dev photos are captioned by the same search as the product's.
"""

import json
import time
from pathlib import Path

import torch

from showtell.data import read_flickr8k
from showtell.errors import OutputError, RecipeError
from showtell.files import write_json
from showtell.nn.captioner import CaptionModel
from showtell.text import tokenize
from showtell.train import checkpoint
from showtell.train.batches import Batches
from showtell.train.build import build_model, choose_objective, limited, parameter_groups, photo_features
from showtell.train.checkpoint import Checkpoint
from showtell.train.display import Reporter
from showtell.train.objectives import Objective
from showtell.train.recipe import Recipe
from showtell.train.schedule import learning_rate, stage_of
from showtell.train.validation import grid_features, validate


def train(recipe: Recipe, data: Path, output: Path, *, resume: bool, report: Reporter) -> Checkpoint:
    """Trains by `recipe` on the data set in `data`; the run's folder is `output`. Returns the best checkpoint.

    Raises OutputError where `output` holds a run and `resume` is not set, RecipeError where it is resumed by another recipe.
    """
    _claim(output, recipe, resume)
    torch.manual_seed(recipe.seed)
    dataset = limited(read_flickr8k(data), recipe.training.max_photos)
    if note := dataset.describe_missing():
        report.message(note)
    train_samples, dev_samples = dataset.split("train"), dataset.split("dev")
    captions = {s.image: [tokenize(caption) for caption in s.captions] for s in train_samples}
    model, source = build_model(recipe, captions)
    report.message(f"{len(train_samples)} train and {len(dev_samples)} dev photos, {len(model.vocabulary)} words")
    names = sorted(sample.image for sample in (*train_samples, *dev_samples))
    cache = photo_features(recipe, model, dataset, names, report)
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe))
    batches = Batches(captions, model.vocabulary, cache, recipe)
    first = 1
    if resume and (restored := checkpoint.newest(output)):
        model.networks().load_state_dict(restored.load_model().networks().state_dict())
        tensors = checkpoint.load_tensors(restored.path / "training.safetensors")
        torch.set_rng_state(tensors.pop("random_state"))
        checkpoint.restore_optimizer(optimizer, tensors)
        first = restored.epoch + 1
        report.message(f"going on after epoch {restored.epoch}")

    objective: Objective | None = None
    for epoch in range(first, recipe.training.epochs + 1):
        started = time.monotonic()
        if objective is None or epoch == stage_of(recipe, epoch).first:
            objective = choose_objective(recipe, epoch, model, captions, output)
        loss = _train_epoch(model, objective, optimizer, batches, epoch, recipe, report)
        scores, examples = validate(model, cache, dev_samples, recipe, report)
        seconds = time.monotonic() - started
        entry = {"epoch": epoch, "loss": round(loss, 4), "seconds": round(seconds, 1), "scores": scores}
        config = {**entry, "data": dataset.name, "encoder_weights": source, "recipe": recipe.model_dump()}
        training = {**checkpoint.optimizer_tensors(optimizer), "random_state": torch.get_rng_state()}
        checkpoint.save(output, model, config, training)
        with open(output / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({**entry, "examples": examples}) + "\n")
        shown = "  ".join(f"{name} {scores[name]:.1f}" for name in ("BLEU-4", "CIDEr"))
        report.message(f"epoch {epoch}: loss {loss:.3f}  {shown}  ({seconds:.0f} s)")
    return checkpoint.best(output)


def _train_epoch(
    model: CaptionModel,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    epoch: int,
    recipe: Recipe,
    report: Reporter,
) -> float:
    """One pass over the train photos; returns the mean loss per token."""
    model.decoder.train()  # the encoder stays in evaluation mode: its normalisation keeps ImageNet's statistics
    options = recipe.training
    stage = stage_of(recipe, epoch)
    total = 0.0
    count = 0
    for number, batch in enumerate(batches.epoch(epoch)):
        step = (epoch - stage.first) * len(batches) + number
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, stage.epochs * len(batches), group["peak"] * stage.scale, options.warmup)
        loss = objective(model, grid_features(model.encoder, batch.cached), batch)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], options.gradient_clip)
        optimizer.step()
        total += loss.total.item()
        count += loss.count
        report.progress(f"epoch {epoch}", number + 1, len(batches), f"loss {total / count:.3f}")
    return total / count


def _claim(output: Path, recipe: Recipe, resume: bool) -> None:
    """Makes the run's folder and writes its recipe, or checks that the run that is there goes on by the same one."""
    file = output / "recipe.json"
    values = recipe.model_dump()
    if file.exists():
        if not resume:
            raise OutputError(f"{output}: holds a training run; go on with --resume or give another folder")
        found = json.loads(file.read_text(encoding="utf-8"))
        if found != values:
            section = next(key for key in values if found.get(key) != values[key])
            raise RecipeError(
                f"{output}: was trained by another recipe ({section}: {found.get(section)}, now {values[section]})"
            )
        return
    try:
        (output / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_json(file, values)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror})") from None
