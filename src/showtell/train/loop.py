"""Training: cached grid features and captions in, checkpoints out.

Teacher-forced cross-entropy with label smoothing (Szegedy et al. 2016), AdamW (Loshchilov and Hutter 2019) under a one-cycle
cosine schedule (Smith and Topin 2019); after each epoch the dev photos are captioned by the same search as the product's.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from showtell import metrics
from showtell.data import Dataset
from showtell.data import read as read_dataset
from showtell.decoding import Array, search
from showtell.errors import OutputError, RecipeError
from showtell.files import write_json
from showtell.image import Preprocessing
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.captioner import CaptionModel, TorchStepModel
from showtell.nn.pretrained import PretrainedEncoder, load_pretrained
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.text import detokenize, tokenize
from showtell.train import checkpoint
from showtell.train.batches import Batches
from showtell.train.checkpoint import Checkpoint
from showtell.train.features import FeatureCache, Output, default_cache, extract
from showtell.train.objectives import CrossEntropy, Objective
from showtell.train.recipe import Recipe
from showtell.types import DecodeOptions, Sample, Split
from showtell.vocab import SEARCH_TOKENS, Vocabulary


class Reporter(Protocol):
    """Who is told how a run goes."""

    def message(self, text: str) -> None:
        """Something worth a line."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of `what`."""


def train(recipe: Recipe, data: Path, output: Path, *, resume: bool, report: Reporter, layout: str | None = None) -> Checkpoint:
    """Trains by `recipe` on the data set in `data`; the run's folder is `output`. Returns the best checkpoint.

    The layout of `data` is recognised unless it is named. Raises OutputError where `output` holds a run and `resume`
    is not set, RecipeError where it is resumed by another recipe.
    """
    _claim(output, recipe, resume)
    torch.manual_seed(recipe.seed)
    dataset = read_dataset(data, layout)
    if note := dataset.describe_left_out():
        report.message(note)
    dataset = _limited(dataset, recipe.training.max_photos)
    train_samples, dev_samples = dataset.split("train"), dataset.split("dev")
    captions = {s.image: [tokenize(caption) for caption in s.captions] for s in train_samples}
    model, source = _model(recipe, captions)
    report.message(f"{len(train_samples)} train and {len(dev_samples)} dev photos, {len(model.vocabulary)} words")
    names = sorted(sample.image for sample in (*train_samples, *dev_samples))
    cache = _features(recipe, model, dataset, names, report)
    optimizer = torch.optim.AdamW(_groups(model, recipe))
    batches = Batches(captions, model.vocabulary, cache, recipe)
    first = 1
    if resume and (restored := checkpoint.newest(output)):
        model.networks().load_state_dict(restored.load_model().networks().state_dict())
        tensors = checkpoint.load_tensors(restored.path / "training.safetensors")
        torch.set_rng_state(tensors.pop("random_state"))
        checkpoint.restore_optimizer(optimizer, tensors)
        first = restored.epoch + 1
        report.message(f"going on after epoch {restored.epoch}")

    for epoch in range(first, recipe.training.epochs + 1):
        started = time.monotonic()
        loss = _train_epoch(model, optimizer, batches, epoch, recipe, report)
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


def validate(
    model: CaptionModel,
    cache: FeatureCache,
    samples: Sequence[Sample],
    recipe: Recipe,
    report: Reporter,
    batch_size: int = 50,
) -> tuple[dict[str, float], dict[str, str]]:
    """Scores x100 of the model's captions of `samples`, and the captions of the first three."""
    options = DecodeOptions(**recipe.validation.model_dump())
    steps = TorchStepModel(model.decoder)
    rows = cache.rows([sample.image for sample in samples])
    candidates: dict[str, str] = {}
    for start in range(0, len(samples), batch_size):
        with torch.inference_mode():
            features = _grid(model.encoder, cache.array[rows[start : start + batch_size]])
        found = search(steps, features.numpy(), SEARCH_TOKENS, options)
        for sample, hypotheses in zip(samples[start : start + batch_size], found, strict=True):
            candidates[sample.image] = detokenize(model.vocabulary.decode(hypotheses[0].tokens))
        report.progress("dev", len(candidates), len(samples))
    references = {sample.image: sample.captions for sample in samples}
    scores = {name: round(value, 3) for name, value in metrics.score(candidates, references).corpus.items()}
    return scores, {sample.image: candidates[sample.image] for sample in samples[:3]}


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """One cycle: from peak/25 up to `peak` over the share `warmup` of all steps, then down to nothing, both along a cosine."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        share = (1 - math.cos(math.pi * step / rise)) / 2
        return peak / 25 + (peak - peak / 25) * share
    return peak * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def _train_epoch(
    model: CaptionModel, optimizer: torch.optim.Optimizer, batches: Batches, epoch: int, recipe: Recipe, report: Reporter
) -> float:
    """One pass over the train photos; returns the mean loss per token."""
    model.decoder.train()  # the encoder stays in evaluation mode: its normalisation keeps ImageNet's statistics
    options = recipe.training
    objective: Objective = CrossEntropy(options.label_smoothing)
    total = 0.0
    count = 0
    for number, batch in enumerate(batches.epoch(epoch)):
        step = (epoch - 1) * len(batches) + number
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.epochs * len(batches), group["peak"], options.warmup)
        loss = objective(model, _grid(model.encoder, batch.cached), batch)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], options.gradient_clip)
        optimizer.step()
        total += loss.total.item()
        count += loss.count
        report.progress(f"epoch {epoch}", number + 1, len(batches), f"loss {total / count:.3f}")
    return total / count


def _grid(encoder: ResNet, cached: Array) -> Tensor:
    """Grid features float32 (B, 49, 2048) from rows of the cache, through the last stage where that is what is trained."""
    features = torch.from_numpy(np.asarray(cached, np.float32))
    return features if features.ndim == 3 else encoder.last_stage(features.permute(0, 3, 1, 2))


def _groups(model: CaptionModel, recipe: Recipe) -> list[dict[str, Any]]:
    """What is trained, with its peak learning rate: matrices decay; biases and normalisation do not."""
    groups: list[dict[str, Any]] = []
    trained = [(list(model.decoder.parameters()), recipe.training.learning_rate)]
    if recipe.encoder.learning_rate > 0:
        trained.append((list(model.encoder.get_submodule("layer4").parameters()), recipe.encoder.learning_rate))
    model.encoder.requires_grad_(False)
    for parameters, peak in trained:
        for parameter in parameters:
            parameter.requires_grad_(True)
        matrices = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        groups.append({"params": matrices, "weight_decay": recipe.training.weight_decay, "peak": peak})
        groups.append({"params": others, "weight_decay": 0.0, "peak": peak})
    return groups


def _model(recipe: Recipe, captions: dict[str, list[list[str]]]) -> tuple[CaptionModel, str]:
    """The model to train, and where its encoder's weights came from: a new decoder, or all of a checkpoint."""
    if recipe.init:
        start = checkpoint.find(Path(recipe.init))
        model = start.load_model()
        word_dropout, dropout = recipe.decoder.word_dropout, recipe.decoder.dropout
        decoder = AttentionLSTM(replace(model.decoder.config, word_dropout=word_dropout, dropout=dropout))
        decoder.load_state_dict(model.decoder.state_dict())
        return replace(model, decoder=decoder), start.config["encoder_weights"]
    vocabulary = Vocabulary.from_captions((c for many in captions.values() for c in many), recipe.vocabulary.min_count)
    pretrained = _encoder(recipe)
    config = DecoderConfig(
        vocabulary=len(vocabulary), features=pretrained.network.config.channels, **recipe.decoder.model_dump()
    )
    return CaptionModel(pretrained.network, AttentionLSTM(config), vocabulary, pretrained.preprocessing), pretrained.source


def _encoder(recipe: Recipe) -> PretrainedEncoder:
    if recipe.encoder.weights == "random":
        network = ResNet(ResNetConfig("v1.5", width=recipe.encoder.width)).eval()
        preprocessing = Preprocessing(scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        return PretrainedEncoder(network, preprocessing, "random")
    return load_pretrained(recipe.encoder.weights or None)


def _features(recipe: Recipe, model: CaptionModel, dataset: Dataset, names: Sequence[str], report: Reporter) -> FeatureCache:
    output: Output = "third-stage" if recipe.encoder.learning_rate > 0 else "grid"
    folder = Path(recipe.encoder.cache) if recipe.encoder.cache else default_cache(model.encoder, names, output)
    report.message(f"features in {folder}")

    def progress(done: int, total: int) -> None:
        report.progress("features", done, total)

    return extract(folder, model.encoder, model.preprocessing, dataset.photos, names, output=output, progress=progress)


def _limited(dataset: Dataset, count: int) -> Dataset:
    """The data set with at most `count` photos of each split; 0 is all."""
    if not count:
        return dataset
    splits: tuple[Split, ...] = ("train", "dev", "test")
    kept = [[s for s in dataset.samples if s.split == split][:count] for split in splits]
    return replace(dataset, samples=tuple(s for many in kept for s in many))


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
