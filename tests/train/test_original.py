"""The original project's merge model: its text rule, its network and its recipe."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import showtell
from fakes import RecordingReporter
from showtell.data import read as read_dataset
from showtell.decoding import search
from showtell.errors import CheckpointError, OptionError, RecipeError
from showtell.export import export
from showtell.image import read_rgb, to_pixels
from showtell.nn import decoders
from showtell.nn.merge_lstm import MergeConfig, MergeLSTM
from showtell.nn.model import TorchStepModel
from showtell.text import RULES
from showtell.train.inputs.batches import Batches, weighted
from showtell.train.inputs.features import FeatureCache, FeatureSource
from showtell.train.inputs.inputs import CachedInputs
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.train import train
from showtell.vocabulary import UNKNOWN, Vocabulary


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe, long enough to know the shapes by heart, over a narrow encoder."""
    folder = tmp_path_factory.mktemp("original")
    sets = ["encoder.weights=random", "encoder.width=8", f"encoder.cache={folder / 'cache'}"]
    sets += ["training.epochs=20", "training.learning_rate=1e-2"]
    train(Recipe.load("original", sets), shapes, folder / "run", resume=False, report=RecordingReporter())
    return folder / "run"


# --- words


def test_captions_are_cut_as_the_original_cut_them() -> None:
    rule = RULES["original"]
    assert rule.tokenize('A man\'s T-shirt says "No. 1" -- NAÏVE!') == ["man", "shirt", "says", "no", "na", "ve"]
    assert rule.tokenize("a b 7 &") == []


def test_words_must_be_seen_more_than_ten_times_and_others_vanish() -> None:
    recipe = Recipe.load("original")
    captions = {f"{n}.jpg": [["dog", *(["runs"] if n < 10 else []), "home"], ["dog"]] for n in range(11)}
    every = [words for many in captions.values() for words in many]
    vocabulary = Vocabulary.from_captions(every, recipe.vocabulary.min_count)
    assert vocabulary.words[4:] == ("dog", "home")  # seen 22 and 11 times; `runs` only 10
    captions["0.jpg"].append(["runs"])  # nothing is left of it
    inputs = CachedInputs([FeatureCache(tuple(captions), np.zeros((11, 1, 2), np.float16))])
    encoded = weighted(captions, vocabulary, rule="original", max_words=33)
    [whole] = Batches(list(captions), encoded, inputs, 16, (1,)).epoch(1)
    [batch] = whole.parts
    assert UNKNOWN not in batch.targets
    assert sorted({vocabulary.decode(ids.tolist()) for ids in batch.inputs[:, 0]}) == [("dog", "home")]
    assert batch.lengths[batch.names.index("0.jpg")].tolist() == [3, 2]


def test_vocabulary_is_counted_over_train_captions(run: Path) -> None:
    model = checkpoint.best(run).load_model()
    shown = {"red", "green", "blue", "yellow", "fence", "square", "cross"}
    assert set(model.vocabulary.words[4:]) == shown | {"there", "is", "on", "grey"}  # and no "a"


# --- network


def test_sizes_are_the_originals() -> None:
    recipe = Recipe.load("original")
    config = decoders.read_config({"vocabulary": 1848, **recipe.decoder.sizes()})
    assert isinstance(config, MergeConfig)
    assert sum(p.numel() for p in decoders.build(config).parameters()) == 1_472_040


def test_an_epoch_over_captions_has_the_losses_of_all_prefixes() -> None:
    """The original's examples, one prefix each, every one read from its beginning."""
    torch.manual_seed(1)
    decoder = MergeLSTM(MergeConfig(vocabulary=12, features=6, hidden=10, embedding=5)).eval()
    features, tokens = torch.randn(2, 1, 6), torch.randint(4, 12, (2, 1, 4))
    together = decoder(features, tokens, torch.full((2, 1), 4)).view(2, 4, 12)
    for photo in range(2):
        for t in range(4):
            prefix = tokens[photo : photo + 1, :, : t + 1]
            alone = decoder(features[photo : photo + 1], prefix, torch.full((1, 1), t + 1))
            assert torch.allclose(together[photo, t], alone[-1], atol=1e-6)


def test_decoders_are_told_apart_by_kind(run: Path, tmp_path: Path) -> None:
    assert isinstance(checkpoint.best(run).load_model().decoder, MergeLSTM)
    with pytest.raises(OptionError, match="merge"):
        decoders.read_config({"kind": "marge", "vocabulary": 9})
    for recipe, key, value in (("original", "attention", 8), ("original", "state_dropout", 0.1), ("flickr8k", "embedding", 8)):
        with pytest.raises(RecipeError, match=rf"decoder\.{key} is no key of a decoder of kind"):
            Recipe.load(recipe, [f"decoder.{key}={value}"])
    copy = Path(shutil.copytree(checkpoint.best(run).path, tmp_path / "epoch-001"))
    config = json.loads((copy / "config.json").read_text())
    config["decoder"]["kind"] = "other"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="'other' is not known"):
        checkpoint.find(copy).load_model()


# --- features, training, export


def test_recipe_learns_the_shapes_by_heart(run: Path, shapes: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "scores" in line]
    assert losses[-1] < 0.8 < losses[0]
    best = checkpoint.best(run)
    model = best.load_model()
    photo = "blue-square-2.jpg"  # of dev: never trained on
    source = FeatureSource(model.encoder, model.preprocessing)
    features = source.extract(tmp_path / "one", read_dataset(shapes).photos, [photo])
    options = Recipe.load("original").validation
    assert (options.beam_size, options.max_length) == (1, 33)
    searched = showtell.DecodeOptions(**options.model_dump())
    [[found]] = search(TorchStepModel(model.decoder), features.array, model.vocabulary.search_tokens(), searched)
    assert "blue" in model.vocabulary.decode(found.tokens)


def test_bundle_without_attention_captions_as_the_checkpoint(run: Path, shapes: Path, tmp_path: Path) -> None:
    found = checkpoint.best(run)
    export(found, tmp_path / "bundle")
    captioner, model = showtell.load(tmp_path / "bundle"), found.load_model()
    dataset = read_dataset(shapes)
    names = [sample.image for sample in dataset.split("dev")]
    pixels = np.stack([to_pixels(read_rgb(dataset.photos.read(name)), model.preprocessing) for name in names])
    features = captioner.features(pixels)
    options = captioner.options(beam_size=3)
    assert (captioner.bundle.search.beam_size, captioner.bundle.search.max_length) == (1, 33)
    ours = search(captioner.decoder, features, model.vocabulary.search_tokens(), options)
    theirs = search(TorchStepModel(model.decoder), features, model.vocabulary.search_tokens(), options)
    assert [h[0].tokens for h in ours] == [h[0].tokens for h in theirs]
    state = captioner.decoder.start(features)
    step = captioner.decoder.step(np.ones((len(names), 1), np.int64), state)
    assert step.attention is None
