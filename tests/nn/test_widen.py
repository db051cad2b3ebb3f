"""The torch networks of a bundle: they compute what its graphs compute, can be trained and exported again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from showtell.bundle import Bundle
from showtell.data import read as read_dataset
from showtell.decoding import search
from showtell.errors import CheckpointError
from showtell.export import calibration_inputs, export
from showtell.nn.model import CaptionModel, TorchStepModel
from showtell.runtime import load
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.run.display import Silent
from showtell.train.train import train
from showtell.types import DecodeOptions


def inputs(shapes: Path, model: CaptionModel) -> np.ndarray:
    photos = read_dataset(shapes).photos
    from showtell.image import read_photo

    return np.stack(
        [model.preprocessing.normalize(read_photo(photos.read(n), model.preprocessing, n).pixels) for n in photos.names()[:6]]
    )


def test_a_float_bundle_gives_its_checkpoint_back(learnt: Path, float_bundle: Path, shapes: Path) -> None:
    original, widened = (checkpoint.find(path).load_model() for path in (learnt, float_bundle))
    assert widened.vocabulary == original.vocabulary
    pixels = torch.from_numpy(inputs(shapes, original))
    with torch.inference_mode():
        features = original.encoder(pixels)
        assert torch.allclose(widened.encoder(pixels), features, atol=1e-4)
    for name, value in original.decoder.state_dict().items():
        if not name.startswith("word_gates"):  # of which only the values for the known words are kept
            assert torch.allclose(widened.decoder.state_dict()[name], value, atol=1e-5), name
    words = original.decoder.embedding.weight
    assert torch.allclose(widened.decoder.word_gates(words), original.decoder.word_gates(words), atol=1e-4)


def test_an_int8_bundle_is_widened_as_it_runs(learnt: Path, int8_bundle: Path, shapes: Path) -> None:
    original, model, captioner = (
        checkpoint.find(learnt).load_model(),
        checkpoint.find(int8_bundle).load_model(),
        load(int8_bundle),
    )
    pixels = inputs(shapes, model)
    theirs = captioner.encoder(pixels)
    with torch.inference_mode():
        ours, exact = (each.encoder(torch.from_numpy(pixels)).numpy() for each in (model, original))
    assert 0 < np.abs(ours - theirs).mean() < np.abs(exact - theirs).mean()  # only activations still differ, not weights
    tokens, options = model.vocabulary.search_tokens(), DecodeOptions(beam_size=2)
    ours, theirs = (search(each, theirs, tokens, options) for each in (TorchStepModel(model.decoder), captioner.decoder))
    assert [h[0].tokens for h in ours] == [h[0].tokens for h in theirs]
    assert [h[0].score for h in ours] == pytest.approx([h[0].score for h in theirs], abs=0.02)


def test_a_bundle_is_trained_further_and_exported_again(int8_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    sets = [f"init={int8_bundle}", f"encoder.cache={tmp_path / 'cache'}", "training.epochs=1", "training.learning_rate=1e-3"]
    before = checkpoint.find(int8_bundle).load_model().encoder.state_dict()
    for name, more in (("frozen", []), ("tuned", ["encoder.trained=layer4", "encoder.learning_rate=1e-4"])):
        best = train(Recipe.load("debug", [*sets, *more]), shapes, tmp_path / name, resume=False, report=Silent())
        assert best.scores["CIDEr"] > 250  # the shapes are still known by heart
        after = checkpoint.find(tmp_path / name / "checkpoints" / "epoch-001").load_model().encoder.state_dict()
        moved = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
        assert moved == ({"layer4"} if more else set())
        encoder = None if more else Bundle.find(int8_bundle)  # a frozen encoder is taken as it is
        photos = calibration_inputs(best, shapes, 12)
        quantize = "int8" if more else "none"
        export(best, tmp_path / name / "bundle", quantize=quantize, calibration=photos, encoder=encoder)
        captioner = load(tmp_path / name / "bundle")
        assert "blue" in captioner(shapes / "images" / "blue-square-2.jpg").text
    files = [json.loads((path / "config.json").read_text())["files"] for path in (int8_bundle, tmp_path / "frozen" / "bundle")]
    assert files[0]["encoder.onnx"] == files[1]["encoder.onnx"]


def test_the_embedded_model_is_found_by_name_and_keeps_its_words() -> None:
    found = checkpoint.find(Path("lite2-lstm-general"))
    assert found.is_bundle
    model = found.load_model()
    assert model.vocabulary == Bundle.find(None).vocabulary
    assert sum(p.numel() for p in model.decoder.parameters()) == 14_023_579
    with pytest.raises(CheckpointError, match="lite3: no such folder; give a run"):
        checkpoint.find(Path("lite3"))


def test_what_is_no_bundle_of_ours_is_refused(int8_bundle: Path, float_bundle: Path, tmp_path: Path) -> None:
    import shutil

    mixed = Path(shutil.copytree(int8_bundle, tmp_path / "mixed"))
    config = json.loads((mixed / "config.json").read_text())
    shutil.copy(mixed / "step.onnx", mixed / "encoder.onnx")
    config["files"]["encoder.onnx"] = config["files"]["step.onnx"]
    (mixed / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no encoder that showtell exported"):
        checkpoint.find(mixed).load_model()
