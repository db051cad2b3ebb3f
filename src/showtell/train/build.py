"""What a recipe asks for, built: the model, its trained parameters, the objective of an epoch, the features of the photos."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from showtell.data import Dataset
from showtell.image import Preprocessing
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.captioner import CaptionModel
from showtell.nn.pretrained import PretrainedEncoder, load_pretrained
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.train import checkpoint
from showtell.train.display import Reporter
from showtell.train.features import FeatureCache, Output, default_cache, extract
from showtell.train.objectives import CrossEntropy, Objective
from showtell.train.recipe import Recipe
from showtell.train.schedule import stage_of
from showtell.train.scst import Reward, SelfCritical, start_model
from showtell.types import Split
from showtell.vocab import Vocabulary

Captions = dict[str, list[list[str]]]  # tokenised captions of each train photo


def build_model(recipe: Recipe, captions: Captions) -> tuple[CaptionModel, str]:
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


def choose_objective(recipe: Recipe, epoch: int, model: CaptionModel, captions: Captions, run: Path) -> Objective:
    """What the epoch, counted from 1, and the others of its stage make small.

    `captions` are those of the train photos; `model` is where the run stands; `run` is its folder, which keeps the model that
    self-critical training started from where that is to be held near.
    """
    cross_entropy = CrossEntropy(recipe.training.label_smoothing)
    if stage_of(recipe, epoch).name == "cross-entropy":
        return cross_entropy
    options = recipe.scst
    reward = Reward(captions, model.vocabulary, options.bleu_weight)
    start = start_model(model.decoder, run / "scst-start.safetensors") if options.kl_weight > 0 else None
    return SelfCritical(options, reward, start, cross_entropy)


def parameter_groups(model: CaptionModel, recipe: Recipe) -> list[dict[str, Any]]:
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


def photo_features(
    recipe: Recipe, model: CaptionModel, dataset: Dataset, names: Sequence[str], report: Reporter
) -> FeatureCache:
    """What the frozen part of the encoder makes of the photos, from the cache as far as it has them."""
    output: Output = "third-stage" if recipe.encoder.learning_rate > 0 else "grid"
    folder = Path(recipe.encoder.cache) if recipe.encoder.cache else default_cache(model.encoder, names, output)
    report.message(f"features in {folder}")

    def progress(done: int, total: int) -> None:
        report.progress("features", done, total)

    return extract(folder, model.encoder, model.preprocessing, dataset.photos, names, output=output, progress=progress)


def limited(dataset: Dataset, count: int) -> Dataset:
    """The data set with at most `count` photos of each split; 0 is all."""
    if not count:
        return dataset
    splits: tuple[Split, ...] = ("train", "dev", "test")
    kept = [[s for s in dataset.samples if s.split == split][:count] for split in splits]
    return Dataset(dataset.name, tuple(s for many in kept for s in many), dataset.photos, dataset.missing)


def _encoder(recipe: Recipe) -> PretrainedEncoder:
    if recipe.encoder.weights == "random":
        network = ResNet(ResNetConfig("v1.5", width=recipe.encoder.width)).eval()
        preprocessing = Preprocessing(scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        return PretrainedEncoder(network, preprocessing, "random")
    return load_pretrained(recipe.encoder.weights or None)
