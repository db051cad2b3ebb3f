"""Builds the parts of a run from its recipe: model, trained parameters, objective, inputs and plan."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from showtell.bundle import Bundle
from showtell.data import Dataset
from showtell.errors import RecipeError
from showtell.image import Preprocessing
from showtell.nn import decoders
from showtell.nn.encoder import STAGES
from showtell.nn.model import CaptionModel
from showtell.nn.pretrained import PretrainedEncoder, load_pretrained
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.train.finetune import with_new_words
from showtell.train.inputs.batches import Batches, Captions, tokenized, weighted
from showtell.train.inputs.borrowing import Borrowed
from showtell.train.inputs.features import OUTPUTS, FeatureSource, View
from showtell.train.inputs.inputs import CachedInputs, Inputs, PixelInputs
from showtell.train.inputs.views import Augmentation
from showtell.train.notes import notes
from showtell.train.objectives.cross_entropy import CrossEntropy, Objective
from showtell.train.objectives.distillation import Distillation, load_teachers
from showtell.train.objectives.self_critical import Reward, SelfCritical
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.run.display import Reporter
from showtell.train.run.folder import check_room
from showtell.train.run.processes import Processes
from showtell.train.trainer import Plan
from showtell.train.validation import DevSet
from showtell.types import DecodeOptions, Sample, Split
from showtell.vocabulary import Vocabulary


def build_model(recipe: Recipe, captions: Captions) -> tuple[CaptionModel, str]:
    """The model to train, and the source of its encoder's weights: a new decoder, or all of a checkpoint.

    `captions` are those that the vocabulary is made from.
    """
    if recipe.init:
        start = checkpoint.find(Path(recipe.init))
        model = _load_reading_alike(start, recipe)
        config = model.decoder.config
        shares = {
            key: value for key, value in recipe.decoder.sizes().items() if key.endswith("dropout") and hasattr(config, key)
        }
        decoder = decoders.build(replace(config, **shares))
        decoder.load_state_dict(model.decoder.state_dict())
        model = replace(model, decoder=decoder, preprocessing=_sized(model.preprocessing, recipe))
        if recipe.finetune.new_words:
            model = with_new_words(model, captions, recipe.vocabulary.min_count, recipe.vocabulary.styles)
        return model, start.config.encoder_weights
    if recipe.finetune.active or recipe.training.objective == "scst":
        key = "finetune" if recipe.finetune.active else 'training.objective = "scst"'
        raise RecipeError(f"a recipe with {key} starts from a trained model: name it with --set init=CHECKPOINT")
    if recipe.vocabulary.of:
        vocabulary = _load_reading_alike(checkpoint.find(Path(recipe.vocabulary.of)), recipe).vocabulary
    else:
        vocabulary = Vocabulary.from_captions((c for many in captions.values() for c in many), recipe.vocabulary.min_count)
        vocabulary = vocabulary.with_styles(recipe.vocabulary.styles)
    pretrained = _encoder(recipe)
    config = decoders.read_config(
        {"vocabulary": len(vocabulary), "features": pretrained.network.config.channels, **recipe.decoder.sizes()}
    )
    return CaptionModel(
        pretrained.network, decoders.build(config), vocabulary, _sized(pretrained.preprocessing, recipe)
    ), pretrained.source


def build_plan(
    recipe: Recipe,
    model: CaptionModel,
    source: str,
    dataset: Dataset,
    borrowed: Mapping[str, Sequence[Borrowed]],
    output: Path,
    processes: Processes,
    report: Reporter,
) -> Plan:
    """The plan of a run: `model`, whose encoder's weights are from `source`, trained on `dataset` into the folder `output`.

    Raises OutputError where the disk has no room for the checkpoints, CacheError and ImageError as FeatureSource does.
    """
    train, dev = dataset.split("train"), dataset.split("dev")
    report.message(f"{len(train)} train and {len(dev)} dev photos, {len(model.vocabulary)} words")
    groups = parameter_groups(model, recipe)
    if processes.first:
        check_room(output, checkpoint.size(model, sum(p.numel() for group in groups for p in group["params"])))
    names = sorted(sample.image for sample in (*train, *dev))
    with processes.first_ahead():
        inputs = build_inputs(recipe, model, dataset, names, report)
    captions = tokenized(train, recipe.vocabulary.text)
    encoded = weighted(
        captions,
        model.vocabulary,
        rule=recipe.vocabulary.text,
        max_words=recipe.training.max_words,
        consensus=recipe.training.consensus,
        borrowed=borrowed,
    )
    for note in notes(dev, encoded):
        report.message(note)
    texts = json.dumps([captions, [[sample.image, sample.captions] for sample in dev]])
    about = {
        "data": dataset.name,
        "encoder_weights": source,
        "recipe": recipe.model_dump(),
        "captions_sha256": sha256(texts.encode()).hexdigest(),
    }
    if processes.first:
        about["photos_sha256"] = sha256(b"".join(map(dataset.photos.digest, names))).hexdigest()
    return Plan(
        model,
        groups,
        build_objective(recipe, model, captions),
        Batches(list(captions), encoded, inputs, recipe.training.photos_per_batch, seeds(recipe, model)),
        dev_set(recipe, dev, inputs),
        recipe.training,
        measure_start=bool(recipe.init),
        about=about,
    )


def seeds(recipe: Recipe, model: CaptionModel) -> tuple[int, ...]:
    """Seeds of all random draws of a run: the recipe's, and for a run with `init` a checksum of its start model's weights.

    With the recipe's seed alone, such a run would repeat the order, views and dropout of the run before it and over-fit them:
    in four such runs the train loss fell by 0.25 within half an epoch, the dev loss not at all.
    """
    if not recipe.init:
        return (recipe.seed,)
    digest = 0
    for value in model.decoder.state_dict().values():
        digest = zlib.crc32(value.cpu().contiguous().numpy().tobytes(), digest)
    return (recipe.seed, digest)


def build_objective(recipe: Recipe, model: CaptionModel, captions: Captions) -> Objective:
    """The run's objective; `captions` are those of the train photos, and teachers go to the model's device."""
    smoothing = recipe.training.label_smoothing
    cross_entropy = CrossEntropy(smoothing)
    if recipe.training.objective == "scst":
        options, reward = recipe.scst, Reward(captions, model.vocabulary)
        mixed = cross_entropy if options.cross_entropy_weight else None
        return SelfCritical(reward, options.samples, options.max_length, mixed, options.cross_entropy_weight)
    if recipe.distill.teachers:
        return Distillation(load_teachers(recipe.distill.teachers, model), recipe.distill.weight, smoothing)
    return cross_entropy


def parameter_groups(model: CaptionModel, recipe: Recipe) -> list[dict[str, Any]]:
    """The optimiser's parameter groups with their `peak` learning rates; all other parameters are frozen.

    Weight decay acts on matrices, not on biases and normalisation.
    """
    model.encoder.requires_grad_(False)
    groups: list[dict[str, Any]] = []
    trained = [(list(model.decoder.parameters()), recipe.training.learning_rate)]
    for stage in range(_first_trained(recipe), STAGES + 1):
        # Earlier stages have more to lose and less to learn (discriminative rates, Howard and Ruder 2018).
        rate = recipe.encoder.learning_rate * recipe.encoder.stage_decay ** (STAGES - stage)
        trained.append((list(model.encoder.stage(stage).requires_grad_(True).parameters()), rate))
    for parameters, peak in trained:
        matrices = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        groups.append({"params": matrices, "weight_decay": recipe.training.weight_decay, "peak": peak})
        groups.append({"params": others, "weight_decay": 0.0, "peak": peak})
    return groups


def build_inputs(recipe: Recipe, model: CaptionModel, dataset: Dataset, names: Sequence[str], report: Reporter) -> Inputs:
    """The named photos as training reads them: cached outputs of the encoder's frozen stages, or pixels."""
    train = {sample.image: sample.captions for sample in dataset.split("train")}
    augmentation = Augmentation.of(train, seed=recipe.seed, **recipe.views.model_dump(exclude={"count"}))
    preprocessing, images = model.preprocessing, recipe.data.images
    last_frozen = _first_trained(recipe) - 1
    if not recipe.encoder.cached or last_frozen not in OUTPUTS:  # earlier stages' outputs would not fit most disks
        return PixelInputs(dataset.photos, preprocessing, augmentation, recipe.views.count, images)
    bundle = Bundle.find(recipe.encoder.bundle) if recipe.encoder.bundle else None
    if bundle:
        model.check_encoder_of(bundle)
    caches = []
    for number in range(recipe.views.count):
        view = View(augmentation, number) if number else None
        source = FeatureSource(model.encoder, preprocessing, last_frozen, view, bundle, images)
        folder = source.folder(cache_root(recipe))
        report.message(f"features in {folder}")
        seen = [name for name in names if name in train] if number else names
        caches.append(source.extract(folder, dataset.photos, seen, progress=report.progress))
    return CachedInputs(caches)


def old_dev(recipe: Recipe, old: Dataset, processes: Processes, report: Reporter, model: CaptionModel) -> DevSet:
    """The dev photos of the data that `init` was trained on, as `model` reads them."""
    samples, photos = old.split("dev"), old.photos
    source = FeatureSource(model.encoder, model.preprocessing, images=recipe.data.images)
    inputs: Inputs = PixelInputs(photos, model.preprocessing, images=recipe.data.images)
    if (
        recipe.encoder.cached and recipe.encoder.trained == "none"
    ):  # a tuned encoder differs each time: its features are not worth a cache
        names = sorted(sample.image for sample in samples)
        with processes.first_ahead():
            folder, what = source.folder(cache_root(recipe)), "features of old photos"
            inputs = CachedInputs([source.extract(folder, photos, names, progress=report.progress, what=what)])
    return dev_set(recipe, samples, inputs)


def dev_set(recipe: Recipe, samples: Sequence[Sample], inputs: Inputs) -> DevSet:
    """The photos that the recipe's validation measures."""
    search = DecodeOptions(**recipe.validation.model_dump())
    return DevSet(samples, inputs, recipe.vocabulary.text, search, recipe.training.max_words)


def cache_root(recipe: Recipe) -> Path:
    """The folder of the recipe's feature caches."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "showtell" / "features"
    return Path(recipe.encoder.cache) if recipe.encoder.cache else default


def _first_trained(recipe: Recipe) -> int:
    """The encoder's first stage that is trained, counted from 1; one beyond the last where none is."""
    trained = recipe.encoder.trained
    return STAGES + 1 if trained == "none" else int(trained.removeprefix("layer"))


def limited(dataset: Dataset, count: int) -> Dataset:
    """The data set with at most `count` photos of each split; 0 is all."""
    if not count:
        return dataset
    splits: tuple[Split, ...] = ("train", "dev", "test")
    kept = [[s for s in dataset.samples if s.split == split][:count] for split in splits]
    return Dataset(dataset.name, tuple(s for many in kept for s in many), dataset.photos, dataset.missing)


def _load_reading_alike(found: checkpoint.Checkpoint, recipe: Recipe) -> CaptionModel:
    """A checkpoint's model. Raises RecipeError where it has another text rule than the recipe."""
    rule = found.config.text_rule
    if rule != recipe.vocabulary.text:
        raise RecipeError(f"{found.path}: its words are those of the text rule {rule!r}; set vocabulary.text={rule}")
    return found.load_model()


def _sized(preprocessing: Preprocessing, recipe: Recipe) -> Preprocessing:
    """The preprocessing with the recipe's size of photos, where it has one."""
    return replace(preprocessing, size=recipe.encoder.size or preprocessing.size)


def _encoder(recipe: Recipe) -> PretrainedEncoder:
    if recipe.encoder.weights == "random":
        network = ResNet(ResNetConfig("v1.5", width=recipe.encoder.width)).eval()
        preprocessing = Preprocessing(scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        return PretrainedEncoder(network, preprocessing, "random")
    path = Path(recipe.encoder.weights)
    if recipe.encoder.weights and checkpoint.exists(path):
        found = checkpoint.find(path)
        model = found.load_model()
        return PretrainedEncoder(model.encoder, model.preprocessing, found.config.encoder_weights)
    return load_pretrained(recipe.encoder.weights or None)
