"""New decoders from old models: on a bundle's features, under teachers; and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fakes import RecordingReporter
from showtell.bundle import Bundle
from showtell.errors import BundleError, OutputError, RecipeError
from showtell.export import calibration_inputs, export
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.model import CaptionModel
from showtell.runtime import load
from showtell.train.build import build_objective
from showtell.train.inputs.batches import Batch
from showtell.train.inputs.inputs import Reading
from showtell.train.objectives.cross_entropy import CrossEntropy
from showtell.train.objectives.distillation import Distillation, load_teachers
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.train import train


@pytest.fixture(scope="module")
def run(learnt: Path, int8_bundle: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new decoder on the int8 features of `learnt`'s encoder, taught by `learnt`."""
    folder = tmp_path_factory.mktemp("distilled")
    sets = [
        f"encoder.weights={learnt}",
        f"encoder.bundle={int8_bundle}",
        f"encoder.cache={folder / 'cache'}",
        f'distill.teachers=["{learnt}"]',
        "views.count=2",
        "views.crop_min=0.9",
        "training.epochs=30",
        "training.max_photos=0",
        "training.log_every=100",
    ]
    train(Recipe.load("debug", sets), shapes, folder / "run", resume=False, report=RecordingReporter())
    return folder / "run"


def test_features_are_the_bundles_and_kept_apart(run: Path, learnt: Path, int8_bundle: Path) -> None:
    bundle = Bundle.read(int8_bundle)
    caches = list((run.parent / "cache").glob("*-grid*"))
    assert len(caches) == 2  # the photos and one view of them
    assert all(cache.name.startswith(bundle.config.files["encoder.onnx"][:12]) for cache in caches)
    best = checkpoint.best(run)
    assert best.load_model().encoder.fingerprint() == checkpoint.best(learnt).load_model().encoder.fingerprint()
    assert best.scores["CIDEr"] > 300  # of 1,000: the shapes are learnt through int8 features


def test_it_is_exported_with_the_encoder_that_it_learnt_from(
    run: Path, int8_bundle: Path, shapes: Path, tmp_path: Path
) -> None:
    best = checkpoint.best(run)
    export(best, tmp_path / "bundle", encoder=Bundle.read(int8_bundle), calibration=calibration_inputs(best, shapes, 8))
    ours, theirs = Bundle.read(tmp_path / "bundle"), Bundle.read(int8_bundle)
    assert ours.config.files["encoder.onnx"] == theirs.config.files["encoder.onnx"]
    assert ours.config.quantization == "int8"
    assert ours.config.json["recipe"]["encoder"]["bundle"] == int8_bundle.name  # its own name, not where it lay
    assert ours.config.json["recipe"]["distill"]["teachers"] == ["run"]
    assert (tmp_path / "bundle" / "step.onnx").stat().st_size < 1.1 * (int8_bundle / "step.onnx").stat().st_size
    captioner = load(tmp_path / "bundle")
    right = [
        f"red {shape}" in captioner(shapes / "images" / f"red-{shape}-2.jpg").text for shape in ("fence", "square", "cross")
    ]
    assert sum(right) >= 2


def test_a_bundle_of_another_encoder_is_refused(learnt: Path, int8_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    sets = [f"encoder.bundle={int8_bundle}", "encoder.width=16", f"encoder.cache={tmp_path}"]
    with pytest.raises(BundleError, match="its encoder or preprocessing differs"):
        train(Recipe.load("debug", sets), shapes, tmp_path / "run", resume=False, report=RecordingReporter())
    with pytest.raises(BundleError, match="its encoder or preprocessing differs"):
        export(checkpoint.best(learnt), tmp_path / "bundle", encoder=Bundle.find(None))
    with pytest.raises(OutputError, match="int8 needs photos to calibrate on"):
        export(checkpoint.best(learnt), tmp_path / "bundle", encoder=Bundle.read(int8_bundle))
    with pytest.raises(RecipeError, match=r"encoder\.bundle gives features of a frozen encoder"):
        Recipe.load("debug", [f"encoder.bundle={int8_bundle}", "encoder.trained=layer4"])


def decoder(seed: int) -> AttentionLSTM:
    torch.manual_seed(seed)
    return AttentionLSTM(DecoderConfig(20, features=16, hidden=12, attention=8, word_dropout=0, dropout=0))


def test_the_loss_by_hand() -> None:
    student, first, second = decoder(0), decoder(1).eval(), decoder(2).eval()
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(2, 4, 16)).astype(np.float32))
    inputs = torch.from_numpy(rng.integers(4, 20, (2, 3, 5)))
    lengths = torch.tensor([[5, 2, 3], [1, 4, 5]])
    targets = torch.from_numpy(rng.integers(4, 20, int(lengths.sum())))
    batch = Batch(("one", "two"), Reading(features.numpy(), 4), inputs, lengths, targets, torch.ones(len(targets)))
    model = CaptionModel(None, student, None, None)  # type: ignore[arg-type]  # nothing else is asked
    found = Distillation([first, second], weight=0.25, label_smoothing=0.1)(model, features, batch)

    scores = student(features, inputs, lengths)
    mean = (first(features, inputs, lengths).softmax(-1) + second(features, inputs, lengths).softmax(-1)) / 2
    soft = -(mean * scores.log_softmax(-1)).sum()
    written = F.cross_entropy(scores, targets, label_smoothing=0.1, reduction="sum")
    assert found.count == len(targets)
    assert torch.allclose(found.total, 0.75 * written + 0.25 * soft, rtol=1e-5)
    found.total.backward()
    assert all(p.grad is None for teacher in (first, second) for p in teacher.parameters())
    assert student.keys.weight.grad is not None


def test_teachers_of_other_words_or_encoders_are_refused(run: Path, learnt: Path, shapes: Path, tmp_path: Path) -> None:
    model = checkpoint.best(run).load_model()
    [teacher] = load_teachers([str(learnt)], model)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    recipe = Recipe.load("debug", [f'distill.teachers=["{learnt}"]'])
    assert isinstance(build_objective(recipe, model, {}), Distillation)
    assert isinstance(build_objective(Recipe.load("debug"), model, {}), CrossEntropy)
    other = [f"encoder.cache={tmp_path / 'cache'}", "training.epochs=1", "training.max_photos=3", "vocabulary.min_count=2"]
    train(Recipe.load("debug", other), shapes, tmp_path / "few", resume=False, report=RecordingReporter())
    with pytest.raises(RecipeError, match="vocabulary of the model"):
        load_teachers([str(tmp_path / "few")], model)
    same = [f"vocabulary.of={learnt}", f"encoder.weights={learnt}", *other[:-1]]
    train(Recipe.load("debug", same), shapes, tmp_path / "same", resume=False, report=RecordingReporter())
    load_teachers([str(tmp_path / "same")], model)  # three photos have fewer words of their own
    model.encoder.conv1.weight.data.mul_(2)
    with pytest.raises(RecipeError, match="encoder of the model"):
        load_teachers([str(learnt)], model)
