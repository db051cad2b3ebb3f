"""Augmented views, and an encoder that is trained from some stage and some epoch on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fakes import RecordingReporter
from showtell.data import read as read_dataset
from showtell.errors import CacheError, RecipeError
from showtell.image import Preprocessing
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.model import CaptionModel
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.train.build import build_inputs, build_model, parameter_groups
from showtell.train.inputs.batches import Batches, weighted
from showtell.train.inputs.features import FeatureSource, View
from showtell.train.inputs.inputs import CachedInputs, PixelInputs, Reading, grid_features
from showtell.train.inputs.prefetch import prefetch
from showtell.train.inputs.views import Augmentation
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.train import train
from showtell.vocabulary import Vocabulary

SMALL = Preprocessing(size=64, scale=1 / 255)


def encoder() -> ResNet:
    torch.manual_seed(8)
    return ResNet(ResNetConfig("v1.5", width=8)).eval()


def augmentation(**changes: object) -> Augmentation:
    options: dict[str, object] = {"seed": 1, "flip": 0.5, "crop_min": 0.5, "crop_max": 0.9, "colour": 0.3, **changes}
    return Augmentation(**options)  # type: ignore[arg-type]


def half_red() -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0] = pixels[:, 30:, 2] = 200
    return Image.fromarray(pixels)


# --- what a view is


def test_views_depend_on_seed_photo_and_number_alone() -> None:
    photo = read_noise()
    make = augmentation()
    assert make(photo, "a.jpg", 0) is photo
    seen = {make(photo, "a.jpg", view).tobytes() for view in range(5)}
    assert len(seen) == 5
    assert make(photo, "a.jpg", 3).tobytes() == augmentation()(photo, "a.jpg", 3).tobytes()
    assert make(photo, "a.jpg", 3).tobytes() != make(photo, "b.jpg", 3).tobytes()
    assert make(photo, "a.jpg", 3).tobytes() != augmentation(seed=2)(photo, "a.jpg", 3).tobytes()


def read_noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def test_crops_keep_their_share_of_the_area() -> None:
    photo = read_noise()
    plain = augmentation(flip=0, colour=0, crop_min=0.5, crop_max=0.7)
    crops = [plain(photo, "a.jpg", view) for view in range(1, 60)]
    shares = [crop.width * crop.height / 2400 for crop in crops]
    assert 0.45 < min(shares) < 0.55
    assert 0.65 < max(shares) < 0.75
    whole = np.asarray(photo).tobytes()
    assert all(np.asarray(crop)[0].tobytes() in whole for crop in crops)  # cut out, nothing changed
    assert augmentation(flip=0, colour=0, crop_min=1, crop_max=1)(photo, "a.jpg", 1).tobytes() == photo.tobytes()


def test_colours_change_within_their_range() -> None:
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    changed = augmentation(flip=0, crop_min=1, crop_max=1, colour=0.2)
    values = [np.asarray(changed(grey, "a.jpg", view)).mean() for view in range(1, 40)]
    assert 79 <= min(values) < 90
    assert 110 < max(values) <= 121


def test_photos_whose_captions_tell_left_from_right_are_not_mirrored() -> None:
    options = {"flip": 1.0, "crop_min": 1.0, "crop_max": 1.0, "colour": 0.0}
    captions = {
        "a.jpg": ["A dog .", "It looks to the LEFT."],
        "b.jpg": ["A dog leftover brightly ."],
        "c.jpg": ["turns right-handed"],
    }
    make = Augmentation.of(captions, seed=1, **options)
    mirrored = {name for name in captions if np.asarray(make(half_red(), name, 1))[0, 0, 2] == 200}
    assert mirrored == {"b.jpg"}


# --- views in training


def test_each_view_has_a_cache_of_its_own(shapes: Path, tmp_path: Path) -> None:
    photos, network, names = read_dataset(shapes).photos, encoder(), read_dataset(shapes).photos.names()[:6]
    plain = FeatureSource(network, SMALL).extract(tmp_path / "plain", photos, names)
    view = View(augmentation(), 2)
    other = FeatureSource(network, SMALL, view=view).extract(tmp_path / "view", photos, names)
    pixels = PixelInputs(photos, SMALL, augmentation(), views=3)
    model = replace(model_of(Recipe.load("debug")), encoder=network)
    for cache, number in ((plain, 0), (other, 2)):
        found = grid_features(model, pixels.read(names, np.full(6, number))).detach().numpy()
        assert np.allclose(cache.array, found, atol=2e-3)
    assert not np.allclose(plain.array, other.array, atol=2e-3)
    for folder, wanted in (
        ("plain", view),
        ("view", None),
        ("view", View(augmentation(colour=0.1), 2)),
        ("view", View(augmentation(), 1)),
    ):
        with pytest.raises(CacheError, match="another view"):
            FeatureSource(network, SMALL, view=wanted).extract(tmp_path / folder, photos, names)

    inputs = CachedInputs([plain, other])
    mixed = inputs.read(names[:3], np.array([1, 0, 1]))
    assert np.array_equal(mixed.array, np.stack([other.array[0], plain.array[1], other.array[2]]))
    assert np.array_equal(inputs.read(names).array, plain.array)


def test_each_epoch_sees_one_view_of_each_photo() -> None:
    class Numbers:
        views = 4

        def read(self, names, views=None):
            return Reading(np.stack([[int(name), view] for name, view in zip(names, views, strict=True)]), 4)

    captions = {str(n): [["word"]] for n in range(40)}
    encoded = weighted(captions, Vocabulary.from_captions([["word"]], 1), rule="ptb", max_words=5)

    def seen(epoch: int, seeds: tuple[int, ...] = (1,)) -> dict[int, int]:
        batches = Batches(list(captions), encoded, Numbers(), 8, seeds)
        parts = [part for batch in batches.epoch(epoch) for part in batch.parts]
        return {name: view for part in parts for name, view in part.photos.array.tolist()}

    first = seen(1)
    assert set(first) == set(range(40))
    assert set(first.values()) == {0, 1, 2, 3}
    assert first == seen(1)
    assert first != seen(2)
    assert first != seen(1, seeds=(2,))
    assert first != seen(1, seeds=(1, 2))


def test_photos_are_as_large_as_the_recipe_has_it(shapes: Path, tmp_path: Path) -> None:
    sets = ["encoder.cached=false", "training.max_photos=4", "training.epochs=1"]
    recipe = Recipe.load("debug", [*sets, "encoder.size=96"])
    found = train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())
    assert found.load_model().preprocessing.size == 96
    for size, wanted in ((0, 96), (64, 64)):
        again = Recipe.load("debug", [*sets, f"init={tmp_path / 'run'}", f"encoder.size={size}"])
        model, _ = build_model(again, {})
        assert model.preprocessing.size == wanted
        photos = read_dataset(shapes).photos
        pixels = PixelInputs(photos, model.preprocessing).read(photos.names()[:2]).array
        assert (pixels.shape, pixels.dtype) == ((2, wanted, wanted, 3), np.uint8)
    with pytest.raises(RecipeError, match="encoder.size is 100: input should be a multiple of 32"):
        Recipe.load("debug", ["encoder.size=100"])


def test_items_are_prefetched_in_order_and_errors_come_through() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(prefetch(items()))
    assert made == [0, 1, 2]
    assert list(prefetch(iter([5, 0, 3]))) == [5, 0, 3]


def test_training_over_cached_views(shapes: Path, tmp_path: Path) -> None:
    sets = ["views.count=3", "views.crop_min=0.6", "views.colour=0.2", f"encoder.cache={tmp_path / 'cache'}"]
    recipe = Recipe.load("debug", [*sets, "training.max_photos=10", "training.epochs=1"])
    train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())
    shapes_of = {
        folder.name.partition("grid")[2].rpartition("-")[0]: (folder / "rows.sha256").stat().st_size // 32
        for folder in (tmp_path / "cache").glob("*-*")
    }
    assert shapes_of == {"": 20, "-view-1": 10, "-view-2": 10}  # dev photos are seen as they are alone
    again = RecordingReporter()
    train(recipe, shapes, tmp_path / "again", resume=False, report=again)
    assert again.steps.count("features") == 3  # nothing was computed a second time
    weights = [checkpoint.newest(tmp_path / run, print).path / "model.safetensors" for run in ("run", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


# --- an encoder that is trained


def model_of(recipe: Recipe) -> CaptionModel:
    decoder = AttentionLSTM(DecoderConfig(vocabulary=9, features=256, hidden=8, attention=8))
    return CaptionModel(encoder(), decoder, Vocabulary.from_captions([["word"]], 1), SMALL)


@pytest.mark.parametrize("stage", ["layer4", "layer3", "layer2", "layer1"])
def test_frozen_part_and_trained_stages_make_the_whole_encoder(stage: str, shapes: Path, tmp_path: Path) -> None:
    sets = [f"encoder.trained={stage}", f"encoder.cache={tmp_path}", "encoder.stage_decay=0.5", "encoder.learning_rate=8e-5"]
    recipe = Recipe.load("debug", sets)
    model, dataset = model_of(recipe), read_dataset(shapes)
    names = [sample.image for sample in dataset.split("train")[:4]]
    small = type(dataset)("small", dataset.samples, dataset.photos)
    groups = parameter_groups(model, recipe)
    photos = build_inputs(recipe, model, small, names, RecordingReporter()).read(names)
    assert photos.array.shape == ((4, 4, 4, 128) if stage == "layer4" else (4, 64, 64, 3))
    features = grid_features(model, photos)
    whole = grid_features(model, PixelInputs(dataset.photos, SMALL).read(names))
    assert torch.allclose(features, whole, atol=2e-3)

    # Gradients reach the trained stages and no others, and each has its rate.
    features.sum().backward()
    first = int(stage[-1])
    with_gradient = {name.partition(".")[0] for name, p in model.encoder.named_parameters() if p.grad is not None}
    assert with_gradient == {f"layer{number}" for number in range(first, 5)}
    rates = {id(p): group["peak"] for group in groups for p in group["params"]}
    for number in range(first, 5):
        weight = model.encoder.get_submodule(f"layer{number}")[0].conv1.weight
        assert rates[id(weight)] == pytest.approx(8e-5 * 0.5 ** (4 - number))


def weights_of(run: Path, epoch: int) -> dict[str, torch.Tensor]:
    return checkpoint.find(run / "checkpoints" / f"epoch-{epoch:03d}").load_model().encoder.state_dict()


def test_trained_stages_move_and_no_others(shapes: Path, tmp_path: Path) -> None:
    sets = ["encoder.trained=layer3", "encoder.learning_rate=1e-3", "training.epochs=1"]
    recipe = Recipe.load("debug", [*sets, f"encoder.cache={tmp_path / 'cache'}", "training.max_photos=8"])
    train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())
    torch.manual_seed(recipe.seed)
    before, after = ResNet(ResNetConfig("v1.5", width=8)).state_dict(), weights_of(tmp_path / "run", 1)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.partition(".")[0] for name in moved} == {"layer3", "layer4"}
    assert "layer3.0.conv1.weight" in moved
    assert not any("running" in name for name in moved)  # ImageNet's statistics stay
    assert not list((tmp_path / "cache").glob("*-*"))  # the second stage's outputs would not fit most disks


def test_views_are_made_on_the_fly_where_nothing_is_cached(shapes: Path, tmp_path: Path) -> None:
    sets = ["encoder.cached=false", "encoder.trained=layer4", "views.count=4", "views.crop_min=0.5", "training.epochs=1"]
    recipe = Recipe.load("debug", [*sets, f"encoder.cache={tmp_path / 'cache'}", "training.max_photos=8"])
    best = train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())
    assert not (tmp_path / "cache").exists()
    assert best.scores["CIDEr"] >= 0


def test_rates_of_a_frozen_encoder_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"encoder\.trained=layer4"):
        Recipe.load("debug", ["encoder.learning_rate=1e-3"])
    with pytest.raises(RecipeError, match="above crop_max"):
        Recipe.load("debug", ["views.crop_min=0.9", "views.crop_max=0.5"])
    assert Recipe.model_validate(Recipe.load("debug").model_dump()) == Recipe.load("debug")
