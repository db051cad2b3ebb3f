"""EfficientNet-Lite: its padding by hand, published weights read into it, exported and trained like ResNet-50."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

import showtell
from fakes import RecordingReporter
from showtell.errors import CheckpointError, OptionError, WeightsError
from showtell.export import calibration_inputs, export
from showtell.nn import encoders
from showtell.nn.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from showtell.nn.pretrained import load_pretrained
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.train import train

LITE0 = EfficientNetLiteConfig(width=1.0, depth=1.0)


def random_weights(network: EfficientNetLite) -> EfficientNetLite:
    """The network with normalisations that do something, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
    return network.eval()


def published(network: EfficientNetLite) -> dict[str, torch.Tensor]:
    """The network's tensors by the names and in the order of the published files, with a classifier."""
    state, found, block = network.state_dict(), {}, -1
    for conv, norm in network.convolutions():
        *place, last = conv.split(".")
        if not place:
            names = ("_conv_stem", "_bn0")
        elif last == "0":
            names = ("_conv_head", "_bn1")
        else:
            first = network.get_submodule(".".join(place)).conv1 is None
            block += last == ("conv2" if first else "conv1")
            kind = {"conv1": "_expand_conv", "conv2": "_depthwise_conv", "conv3": "_project_conv"}[last]
            names = (f"_blocks.{block}.{kind}", f"_blocks.{block}._bn{int(last[-1]) - 1}")
        found[f"{names[0]}.weight"] = state[f"{conv}.weight"]
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            found[f"{names[1]}.{part}"] = state[f"{norm}.{part}"]
    return found | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def by_hand(state: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Lite0 written down once more from the published names: the repeats, kernels and strides of EfficientNet-B0."""

    def conv_bn(x: torch.Tensor, conv: str, bn: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        size = weight.shape[-1]
        if stride == 2:  # TensorFlow's "SAME" of even sides
            x = F.pad(x, ((size - 2) // 2, (size - 1) // 2) * 2)
        x = F.conv2d(x, weight, None, stride, 0 if stride == 2 else size // 2, groups=groups)
        mean, variance, scale, shift = (state[f"{bn}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)

    x = F.relu6(conv_bn(x, "_conv_stem", "_bn0", 2))
    block = 0
    for repeats, first_stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        for repeat in range(repeats):
            name, before = f"_blocks.{block}", x
            if f"{name}._expand_conv.weight" in state:
                x = F.relu6(conv_bn(x, f"{name}._expand_conv", f"{name}._bn0"))
            stride = first_stride if repeat == 0 else 1
            x = F.relu6(conv_bn(x, f"{name}._depthwise_conv", f"{name}._bn1", stride, x.shape[1]))
            x = conv_bn(x, f"{name}._project_conv", f"{name}._bn2")
            x = x + before if x.shape == before.shape else x
            block += 1
    return F.relu6(conv_bn(x, "_conv_head", "_bn1"))


@pytest.fixture(scope="module")
def lite0() -> EfficientNetLite:
    torch.manual_seed(0)
    return random_weights(EfficientNetLite(LITE0))


def test_published_weights_give_the_published_network(lite0: EfficientNetLite, tmp_path: Path) -> None:
    torch.save(published(lite0), tmp_path / "lite0.pth")
    found = load_pretrained(tmp_path / "lite0.pth")
    assert found.network.config == LITE0
    assert (found.preprocessing.mean, found.preprocessing.std) == ((127.0,) * 3, (128.0,) * 3)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = found.network(pixels)
        expected = by_hand(published(lite0), pixels).flatten(2).transpose(1, 2)
    assert features.shape == (2, 4, 1280)
    assert expected.std() > 0.1
    assert torch.allclose(features, expected, atol=1e-4)


def test_weights_of_other_sizes_are_refused(lite0: EfficientNetLite, tmp_path: Path) -> None:
    tensors = published(lite0)
    torch.save({**tensors, "_conv_head.weight": torch.zeros(7, 320, 1, 1)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="no EfficientNet-Lite from 0 to 4"):
        load_pretrained(tmp_path / "odd.pth")
    del tensors["_blocks.0._bn1.bias"]
    torch.save(tensors, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=r"layer1\.0\.bn2\.bias is missing"):
        load_pretrained(tmp_path / "cut.pth")


def test_stages_are_split_anywhere(lite0: EfficientNetLite) -> None:
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        whole = lite0(pixels)
        for last in range(4):
            part = lite0.first_stages(pixels, last)
            assert torch.equal(lite0.last_stages(part, last + 1), whole)
            if last:
                assert part.shape[1] == LITE0.stage_channels(last)


def test_lite2_has_the_published_sizes() -> None:
    config = EfficientNetLiteConfig()
    assert [config.stage_channels(stage) for stage in range(1, 5)] == [24, 48, 120, 1280]
    network = EfficientNetLite(config)
    assert len(network.convolutions()) == 64
    # 6,092,072 parameters with the classifier's 1,281,000
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_092_072 - 1_281_000


def test_an_unknown_encoder_is_named(learnt: Path) -> None:
    with pytest.raises(OptionError, match="encoder kind 'vit' is not known; there are resnet, efficientnet-lite"):
        encoders.read_config({"kind": "vit"})
    with pytest.raises(OptionError, match="of kind resnet has variant, blocks"):
        encoders.read_config({"variant": "v1", "depth": 3})
    found = checkpoint.find(learnt)
    found.config.encoder["kind"] = "vit"
    with pytest.raises(CheckpointError, match="'vit' is not known"):
        found.load_model()


def test_a_captioner_with_it_is_trained_exported_and_quantised(shapes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(published(random_weights(EfficientNetLite(LITE0))), tmp_path / "lite0.pth")
    sets = [f"encoder.weights={tmp_path / 'lite0.pth'}", "encoder.trained=layer4", "training.epochs=2"]
    recipe = Recipe.load("debug", [*sets, f"encoder.cache={tmp_path / 'cache'}"])
    best = train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())
    [cache] = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert cache.name.endswith("third-stage")  # what is frozen is computed once
    before, after = load_pretrained(tmp_path / "lite0.pth").network.state_dict(), best.load_model().encoder.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"layer4"}

    export(best, tmp_path / "float")
    nodes = [node.op_type for node in onnx.load(tmp_path / "float" / "encoder.onnx").graph.node]
    assert "Pad" not in nodes
    model, captioner = best.load_model(), showtell.load(tmp_path / "float")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    with torch.inference_mode():
        expected = model.encoder(torch.from_numpy(model.preprocessing.normalize(pixels))).numpy()
    assert np.allclose(captioner.features(pixels), expected, atol=1e-3 * np.abs(expected).max())

    export(best, tmp_path / "int8", quantize="int8", calibration=calibration_inputs(best, shapes, 8))
    quantised = showtell.load(tmp_path / "int8").features(pixels)
    assert quantised.shape == (3, 49, 1280)
    assert np.linalg.norm(quantised - expected) < 0.5 * np.linalg.norm(expected)
    sizes = [(tmp_path / kind / "encoder.onnx").stat().st_size for kind in ("int8", "float")]
    assert sizes[0] < sizes[1] / 3
