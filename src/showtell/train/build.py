"""What a recipe asks for, built: the model, its trained parameters, the objective of an epoch, what is read of the photos."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
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
from showtell.train.inputs.features import OUTPUT_STAGES, Output, View, cache_folder, extract
from showtell.train.inputs.inputs import CachedInputs, Inputs, PhasedInputs, PixelInputs
from showtell.train.inputs.views import Augmentation
from showtell.train.objectives.cross_entropy import CrossEntropy, Objective
from showtell.train.objectives.distillation import Distillation, load_teachers
from showtell.train.objectives.self_critical import Reward, SelfCritical
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.run.display import Reporter
from showtell.train.schedule import stage_of
from showtell.types import Split
from showtell.vocabulary import Vocabulary

Captions = dict[str, list[list[str]]]  # tokenised captions of each train photo


def build_model(recipe: Recipe, captions: Captions) -> tuple[CaptionModel, str]:
    """The model to train, and where its encoder's weights came from: a new decoder, or all of a checkpoint."""
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
        return model, start.config["encoder_weights"]
    if recipe.needs_init:
        raise RecipeError(f"a recipe with {recipe.needs_init} goes on from a trained model: name it with --set init=CHECKPOINT")
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


def seeds(recipe: Recipe, model: CaptionModel) -> tuple[int, ...]:
    """What all draws of a run follow from, given the model that it starts with: for one that goes on, that model's weights too.

    By its seed alone it would see the order, views and dropout of the run before once more, and learn those by heart: in four
    such runs the loss on train fell by 0.25 within half an epoch, and that on dev not at all.
    """
    if not recipe.init:
        return (recipe.seed,)
    digest = 0
    for value in model.decoder.state_dict().values():
        digest = zlib.crc32(value.cpu().contiguous().numpy().tobytes(), digest)
    return (recipe.seed, digest)


def choose_objective(recipe: Recipe, epoch: int, model: CaptionModel, captions: Captions) -> Objective:
    """What the epoch, counted from 1, and the others of its stage make small.

    `captions` are those of the train photos; `model` is where the run stands.
    """
    cross_entropy = CrossEntropy(recipe.training.label_smoothing)
    if stage_of(recipe, epoch).name == "cross-entropy":
        if recipe.distill.teachers:
            teachers = load_teachers(recipe.distill.teachers, model)
            return Distillation(teachers, recipe.distill.weight, recipe.training.label_smoothing)
        return cross_entropy
    return SelfCritical(recipe.scst, Reward(captions, model.vocabulary), cross_entropy)


def parameter_groups(model: CaptionModel, recipe: Recipe) -> list[dict[str, Any]]:
    """What is trained, with its peak learning rate: matrices decay; biases and normalisation do not."""
    groups: list[dict[str, Any]] = []
    trained = [(list(model.decoder.parameters()), recipe.training.learning_rate)]
    for stage in range(_first_trained(recipe), STAGES + 1):
        # Earlier stages have more to lose and less to learn (discriminative rates, Howard and Ruder 2018).
        rate = recipe.encoder.learning_rate * recipe.encoder.stage_decay ** (STAGES - stage)
        trained.append((list(model.encoder.stage(stage).parameters()), rate))
    for parameters, peak in trained:
        matrices = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        groups.append({"params": matrices, "weight_decay": recipe.training.weight_decay, "peak": peak})
        groups.append({"params": others, "weight_decay": 0.0, "peak": peak})
    return groups


def tune_encoder(model: CaptionModel, recipe: Recipe, epoch: int) -> None:
    """Lets the epoch, counted from 1, train those stages of the encoder that it is to train, and no others."""
    model.encoder.requires_grad_(False)
    if epoch >= recipe.encoder.from_epoch:
        for stage in range(_first_trained(recipe), STAGES + 1):
            model.encoder.stage(stage).requires_grad_(True)


def photo_inputs(recipe: Recipe, model: CaptionModel, dataset: Dataset, names: Sequence[str], report: Reporter) -> PhasedInputs:
    """What training reads of the named photos: what the frozen part of the encoder makes of them, cached, or pixels."""
    train = {sample.image: sample.captions for sample in dataset.split("train")}
    options = recipe.views.model_dump(exclude={"count"})
    augmentation = Augmentation.of(train, seed=recipe.seed, **options)
    encoder, preprocessing, photos = model.encoder, model.preprocessing, dataset.photos
    root = Path(recipe.encoder.cache) if recipe.encoder.cache else None
    bundle = Bundle.find(recipe.encoder.bundle) if recipe.encoder.bundle else None
    if bundle:
        model.check_encoder_of(bundle)

    def progress(done: int, total: int) -> None:
        report.progress("features", done, total)

    def cached(output: Output) -> Inputs:
        caches = []
        for number in range(recipe.views.count):
            view = View(augmentation, number) if number else None
            which = [name for name in names if name in train] if number else list(names)
            folder = cache_folder(root, encoder, output, view, bundle)
            grid = cache_folder(root, encoder, "grid", view, bundle)
            report.message(f"features in {folder}")
            caches.append(
                extract(
                    folder,
                    encoder,
                    preprocessing,
                    photos,
                    which,
                    output=output,
                    view=view,
                    bundle=bundle,
                    grid=grid,
                    images=recipe.data.images,
                    progress=progress,
                )
            )
        return CachedInputs(caches)

    pixels = PixelInputs(photos, preprocessing, augmentation, recipe.views.count, recipe.data.images)
    if not recipe.encoder.cached:
        return PhasedInputs(pixels, pixels, 1)
    whole = decoders.reads(model.decoder.config)
    if recipe.encoder.trained == "none":
        frozen = cached(whole)
        return PhasedInputs(frozen, frozen, 1)
    # The outputs of the stages before would not fit most disks.
    stage_outputs: dict[int, Output] = {number: output for output, number in OUTPUT_STAGES.items()}
    last_frozen = _first_trained(recipe) - 1
    tuned = cached(stage_outputs[last_frozen]) if last_frozen in stage_outputs else pixels
    from_epoch = recipe.encoder.from_epoch
    return PhasedInputs(cached(whole) if from_epoch > 1 else tuned, tuned, from_epoch)


def _first_trained(recipe: Recipe) -> int:
    """The encoder's first stage that is trained, counted from 1; beyond the last where none is."""
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
    """A checkpoint's model. Raises RecipeError where it cuts captions into words by another rule than the recipe's."""
    read_by = found.config["recipe"]["vocabulary"].get("text", "ptb")
    if read_by != recipe.vocabulary.text:
        raise RecipeError(f"{found.path}: learnt its words by the rule {read_by!r}; set vocabulary.text={read_by}")
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
    if recipe.encoder.weights and ((path / "config.json").is_file() or (path / "checkpoints").is_dir()):
        found = checkpoint.find(path)
        model = found.load_model()
        return PretrainedEncoder(model.encoder, model.preprocessing, found.config["encoder_weights"])
    return load_pretrained(recipe.encoder.weights or None)
