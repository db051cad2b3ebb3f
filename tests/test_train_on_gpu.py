"""The script that trained the embedded model, without a GPU: what it computes is what showtell computes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.train.run import checkpoint


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[1] / "examples" / "train_on_gpu.py"
    spec = importlib.util.spec_from_file_location("train_on_gpu", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_padded_teacher_forcing_equals_the_decoders_own(script: ModuleType) -> None:
    torch.manual_seed(3)
    decoder = AttentionLSTM(DecoderConfig(vocabulary=30, features=16, hidden=12, attention=8)).eval()
    features, tokens, lengths = torch.randn(2, 9, 16), torch.randint(0, 30, (2, 3, 5)), torch.tensor([[5, 2, 4], [1, 5, 3]])
    there = torch.arange(5) < lengths.unsqueeze(-1)
    found = script.teacher_forced(decoder, features, tokens, False)[there]
    assert torch.allclose(found, decoder(features, tokens, lengths), atol=1e-5)


def test_views_change_photos_and_keep_their_range(script: ModuleType) -> None:
    from showtell.image import Preprocessing
    from showtell.train.recipe import Recipe

    recipe = Recipe.load("general", ["views.crop_min=1", "views.crop_max=1", "views.colour=0", "views.flip=1"])
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    photos = script.Photos(["a", "b", "c"], pixels, frozenset({"b"}), 1)
    found = photos.augmented(torch.arange(3), recipe, Preprocessing(size=16, scale=1 / 255))
    mirrored = pixels.flip(-1) / 255
    assert torch.allclose(found[[0, 2]], mirrored[[0, 2]], atol=1e-4)
    assert torch.allclose(found[1], pixels[1] / 255, atol=1e-4)  # its captions tell left from right
    recipe = Recipe.load("general", ["views.crop_min=0.3", "views.colour=0.3"])
    changed = photos.augmented(torch.arange(3), recipe, Preprocessing(size=16))
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert not torch.allclose(changed, photos.augmented(torch.arange(3), recipe, Preprocessing(size=16)))


def test_it_trains_both_stages_into_checkpoints(script: ModuleType, shapes: Path, tmp_path: Path) -> None:
    small = ["encoder.weights=random", "encoder.width=8", "encoder.size=64", "decoder.hidden=16", "decoder.attention=8"]
    short = ["vocabulary.styles=[]", "training.epochs=1", "training.photos_per_batch=4"]
    sets = [part for key in [*small, *short] for part in ("--set", key)]
    done = CliRunner().invoke(
        script.main,
        ["--data", str(shapes), "--output", str(tmp_path / "run"), "--photos", "8", "--frozen-epochs", "0", *sets],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    models = [checkpoint.find(tmp_path / "run" / name).load_model() for name in ("cross-entropy", "scst")]
    first, second = (model.networks().state_dict() for model in models)
    for part in ("encoder.layer4", "decoder.embedding"):
        assert any(not first[name].equal(second[name]) for name in first if name.startswith(part))
    assert first["encoder.conv1.weight"].equal(second["encoder.conv1.weight"])  # the stem is not trained
