"""From checkpoints to bundles: what stands for what, names, and calibration. Whole exports are in test_runtime.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import showtell
from showtell.bundle import EMBEDDED, MODELS, Bundle
from showtell.errors import BundleError, CheckpointError, DataError
from showtell.export.export import _write, calibration_inputs, default_name, fold_batch_norm, quantize_encoder
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.runtime.sessions import OnnxEncoder
from showtell.train.run import checkpoint


def test_a_checkpoint_or_a_run_where_a_bundle_is_wanted_says_how_to_export_it(learnt: Path, tmp_path: Path) -> None:
    saved = checkpoint.best(learnt).path
    run = tmp_path / "my run"
    (run / "checkpoints").mkdir(parents=True)
    for model, what in ((saved, "checkpoint"), (str(saved), "checkpoint"), (run, "training run")):
        with pytest.raises(BundleError, match=f"a {what}, not a bundle; export it first: showtell export .* --output "):
            showtell.load(model)
    with pytest.raises(BundleError, match=f"showtell export '{run}' --output"):  # as a shell takes it
        Bundle.find(run)
    with pytest.raises(BundleError, match="no config.json here"):
        Bundle.find(tmp_path)


def test_a_checkpoint_that_lacks_a_key_says_which(learnt: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint.best(learnt).path / "config.json").read_text(encoding="utf-8"))
    for key in ("encoder", "preprocessing"):
        broken = {name: value for name, value in config.items() if name != key}
        (tmp_path / "config.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(CheckpointError, match=rf"config\.json: the key '{key}' is missing"):
            checkpoint.find(tmp_path)


@pytest.mark.parametrize(
    ("folder", "name"), [("a/my model", "my model"), ("runs/first/bundle", "first"), ("a/../b", "b"), ("/bundle", "bundle")]
)
def test_a_bundle_is_named_after_its_folder_or_its_run(folder: str, name: str) -> None:
    assert default_name(Path(folder)) == name


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ResNet]:
    """A small encoder of 64 x 64 pixels, as an ONNX graph in float32 and in torch."""
    torch.manual_seed(0)
    network = ResNet(ResNetConfig("v1", blocks=(1, 1, 1, 1), width=8))
    path = tmp_path_factory.mktemp("small") / "encoder.onnx"
    encoder = fold_batch_norm(network)
    _write(encoder, (torch.zeros(2, 3, 64, 64),), path, ["pixels"], ["features"], {"pixels": {0: "photos"}})
    return path.read_bytes(), network


@pytest.mark.parametrize("count", [1, 7, 8, 13])
def test_any_number_of_photos_calibrates(small: tuple[bytes, ResNet], tmp_path: Path, count: int) -> None:
    graph, network = small
    path = tmp_path / "encoder.onnx"
    path.write_bytes(graph)
    photos = np.random.default_rng(0).normal(size=(count, 3, 64, 64)).astype(np.float32)
    exact = OnnxEncoder(tmp_path, 1, "cpu")(photos)
    quantize_encoder(path, network, list(photos))
    assert b"QuantizeLinear" in path.read_bytes()
    close = OnnxEncoder(tmp_path, 1, "cpu")(photos)
    assert close.shape == exact.shape
    assert np.abs(close - exact).mean() < 0.1 * np.abs(exact).mean()


def test_broken_photos_are_left_out_of_calibration_and_named(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    reasons: list[str] = []
    assert len(calibration_inputs(checkpoint.find(MODELS / EMBEDDED), tmp_path, 3, left_out=reasons.append)) == 2
    [reason] = reasons
    assert "b.png" in reason
    for name in ("a.png", "c.png"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match="none of the 1 photos to calibrate on can be read"):
        calibration_inputs(checkpoint.find(MODELS / EMBEDDED), tmp_path, 3)
