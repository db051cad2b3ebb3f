"""Backbones of transformers and timm, tiny and with random weights on disk: trained, exported and captioning without torch."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from math import isqrt
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ConvNextConfig,
    ConvNextImageProcessorPil,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SwinConfig,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from fakes import RecordingReporter
from showtell.errors import CheckpointError, MissingExtraError, OptionError, OutputError, WeightsError
from showtell.export import calibration_inputs, export
from showtell.export.export import quantize_backbone
from showtell.image import ImageSettings, Preprocessing, read_photo
from showtell.nn import encoders
from showtell.nn.backbones import load_backbone
from showtell.runtime.sessions import OnnxEncoder
from showtell.train.recipe import Recipe, without_folders
from showtell.train.run import checkpoint
from showtell.train.train import train

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "giraffes.jpg"
SIZE = {"height": 64, "width": 64}
SHORTEST = {"shortest_edge": 64}
HEADS = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**HEADS, "image_size": 64, "patch_size": 16}
TEXT = {**HEADS, "num_hidden_layers": 1, "vocab_size": 10, "bos_token_id": 1, "eos_token_id": 2}
STAGES = {"hidden_sizes": [8, 8, 16, 32], "depths": [1, 1, 1, 1]}

FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "vit": lambda: (ViTModel(ViTConfig(**VISION)), ViTImageProcessorPil(size=SIZE)),
    "dinov2": lambda: (  # trained at another size than its preprocessing's, as the published ones are
        Dinov2Model(Dinov2Config(**{**VISION, "image_size": 112})),
        BitImageProcessorPil(size={"shortest_edge": 72}, crop_size=SIZE),
    ),
    "dinov2-registers": lambda: (
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**VISION)),
        ViTImageProcessorPil(size=SIZE),
    ),
    "clip": lambda: (
        CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION)),
        CLIPImageProcessorPil(size=SHORTEST, crop_size=SIZE),
    ),
    "siglip": lambda: (SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION)), SiglipImageProcessorPil(size=SIZE)),
    "convnext": lambda: (ConvNextModel(ConvNextConfig(**STAGES)), ConvNextImageProcessorPil(size=SHORTEST)),
    "resnet": lambda: (ResNetModel(ResNetConfig(embedding_size=8, **STAGES)), ConvNextImageProcessorPil(size=SHORTEST)),
}
CELLS = {"convnext": 4, "resnet": 4}  # of 64 pixels; 16 of the others


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    for name, make in FAMILIES.items():
        torch.manual_seed(0)
        for part in make():
            part.save_pretrained(folder / name)
    return folder


def trained(weights: str, shapes: Path, folder: Path, *settings: str) -> checkpoint.Checkpoint:
    """The checkpoint after one debug epoch."""
    values = [f"encoder.weights={weights}", f"encoder.cache={folder / 'cache'}", "training.epochs=1", "training.max_photos=8"]
    recipe = Recipe.load("debug", [*values, *settings])
    return train(recipe, shapes, folder / "run", resume=False, report=RecordingReporter())


def expected_input(found: checkpoint.Checkpoint) -> np.ndarray:
    """Three random photos as model input."""
    preprocessing = found.config.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (3, preprocessing.size, preprocessing.size, 3), np.uint8)
    return preprocessing.normalize(pixels)


def features(found: checkpoint.Checkpoint, bundle: Path) -> tuple[np.ndarray, np.ndarray]:
    """Grid features of three random photos, in torch and in the runtime."""
    pixels = expected_input(found)
    with torch.inference_mode():
        return found.load_model().encoder(torch.from_numpy(pixels)).numpy(), OnnxEncoder(bundle, 1, "cpu")(pixels)


@pytest.fixture(scope="module")
def bundle(models: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a Vision Transformer."""
    folder = tmp_path_factory.mktemp("whole")
    export(trained(f"hf:{models / 'vit'}", shapes, folder), folder / "bundle")
    return folder / "bundle"


WITHOUT_TORCH = """
import json, sys
for name in ("torch", "transformers", "timm", "onnx"):
    sys.modules[name] = None
import showtell
[record] = showtell.load(sys.argv[1]).records([sys.argv[2]], attention=True)
print(json.dumps(record.to_json()))
"""


def caption_without_torch(bundle: Path, side: int) -> None:
    """Captions a photo where neither torch nor the library of the encoder can be imported; the grid has `side` cells a side."""
    command = [sys.executable, "-c", WITHOUT_TORCH, str(bundle), str(PHOTO)]
    record = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert record["status"] == "ok"
    assert np.shape(record["attention"]) == (len(record["tokens"]), side, side)


def test_a_bundle_tells_nothing_of_the_folder_of_its_encoder(bundle: Path, models: Path) -> None:
    config = json.loads((bundle / "config.json").read_text())
    assert config["architecture"]["encoder"]["name"] == config["encoder_weights"] == "hf:vit"
    assert str(models) not in json.dumps(config)  # where the model lay is nobody's business
    with pytest.raises(CheckpointError, match="not read from bundles"):
        checkpoint.find(bundle).load_model()


TUNED = {"clip", "convnext"}  # families whose last stage is trained here; of the others the features are cached


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_trained_and_exported(family: str, models: Path, shapes: Path, tmp_path: Path) -> None:
    weights, cells = f"hf:{models / family}", CELLS.get(family, 16)
    settings = ["encoder.trained=layer4", "encoder.learning_rate=1e-2"] if family in TUNED else []
    found = trained(weights, shapes, tmp_path, *settings)
    before, after = load_backbone(weights).network, found.load_model().encoder.state_dict()
    changed = {name for name, value in before.state_dict().items() if not torch.equal(value, after[name])}
    names = {id(parameter): name for name, parameter in before.named_parameters()}
    last = {names[id(parameter)] for parameter in before.stage_parameters(4)}
    assert bool(changed) == (family in TUNED)
    assert changed <= last

    bundle = tmp_path / "bundle"
    export(found, bundle)
    expected, given = features(found, bundle)
    assert given.shape == (3, cells, 32)
    assert expected.std() > 0.01
    assert np.allclose(given, expected, atol=1e-4 * np.abs(expected).max())
    caption_without_torch(bundle, isqrt(cells))

    quantize_backbone(bundle / "encoder.onnx", calibration_inputs(found, shapes, 8))
    kinds = [node.op_type for node in onnx.load(bundle / "encoder.onnx").graph.node]
    assert kinds.count("QuantizeLinear") >= 3
    int8 = OnnxEncoder(bundle, 1, "cpu")(expected_input(found))
    assert 0 < np.linalg.norm(int8 - expected) < 0.5 * np.linalg.norm(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_preprocessing_is_what_the_models_own_processor_does(family: str, models: Path) -> None:
    preprocessing = load_backbone(f"hf:{models / family}").preprocessing
    ours = preprocessing.normalize(read_photo(PHOTO, preprocessing, settings=ImageSettings()).pixels)
    with Image.open(PHOTO) as photo:
        processor = AutoImageProcessor.from_pretrained(models / family)
        [theirs] = processor(photo.convert("RGB"), return_tensors="np")["pixel_values"]
    assert ours.shape == theirs.shape
    # Theirs resizes to whole pixels and then crops, ours crops at fractions of a pixel; and large JPEGs are decoded scaled.
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95
    assert abs(ours.mean() - theirs.mean()) < 0.02 * theirs.std()


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_make_four_stages(family: str, models: Path) -> None:
    network = load_backbone(f"hf:{models / family}").network
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    stages = [[names[id(parameter)] for parameter in network.stage_parameters(stage)] for stage in range(5)]
    listed = [name for stage in stages for name in stage]
    assert len(set(listed)) == len(listed)
    assert not any(re.search("pooler|head|post_layernorm" if family == "clip" else "pooler|head", name) for name in listed)
    assert all("embed" in name or "pre_layrnorm" in name for name in stages[0])  # before the blocks
    blocks = [{found[0] for name in stage if (found := re.search(r"(layers?|stages)\.\d", name))} for stage in stages[1:]]
    assert blocks[3] == ({"stages.3"} if family in CELLS else {f"{next(iter(blocks[3])).split('.')[0]}.1"})
    assert [len(each) for each in blocks] == ([1, 1, 1, 1] if family in CELLS else [0, 1, 0, 1])


def test_int8_that_ruins_the_features_is_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(bundle / "encoder.onnx", tmp_path)
    photos = list(np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32))
    monkeypatch.setattr(sys.modules["showtell.export.export"], "MOST_ERROR", 0.0)
    with pytest.raises(OutputError, match=r"int8 does not suit this encoder: its features are \d+% off"):
        quantize_backbone(tmp_path / "encoder.onnx", photos)


def test_features_are_cached_and_the_network_is_built_from_its_config(models: Path, tmp_path: Path) -> None:
    first, second = (load_backbone(f"hf:{models / 'siglip'}").network for _ in range(2))
    assert first.fingerprint() == second.fingerprint()  # what no feature depends on is not random
    config = encoders.read_config(json.loads(json.dumps(asdict(first.config))))
    again = encoders.build(config)
    again.load_state_dict(first.state_dict())
    assert again.fingerprint() == first.fingerprint()
    with pytest.raises(OptionError, match="built for photos of 64 pixels, not 96"):
        first.cells(96)
    assert load_backbone(f"hf:{models / 'siglip'}", 96).network.cells(96) == 36  # its position embeddings are interpolated


def test_what_cannot_be_an_encoder_is_named(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="cannot be loaded as an image encoder"):
        load_backbone(f"hf:{tmp_path}")
    model, processor = FAMILIES["vit"]()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")  # a pickle
    model.config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="safetensors"):
        load_backbone(f"hf:{tmp_path}")
    weights = load_file(models / "vit" / "model.safetensors")
    weights.pop(next(name for name in weights if "layernorm_after" in name))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match="its file lacks the weights"):
        load_backbone(f"hf:{tmp_path}")
    processor.size = {"height": 64, "width": 96}
    processor.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="does not make squares"):
        load_backbone(f"hf:{tmp_path}")
    SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 1]).save_pretrained(tmp_path)
    processor.size = SIZE
    processor.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="could be trained but not exported"):
        load_backbone(f"hf:{tmp_path}")
    for library in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, library, None)
    for name, extra in (("timm:resnet50", "timm"), (f"hf:{models / 'vit'}", "hf")):
        with pytest.raises(MissingExtraError, match=rf"\[{extra}\]"):
            load_backbone(name)


def test_names_of_models_are_published_and_folders_are_not() -> None:
    for given, kept in (
        ("hf:facebook/dinov2-small", "hf:facebook/dinov2-small"),
        ("timm:resnet50.a1_in1k", "timm:resnet50.a1_in1k"),
        ("hf:/home/me/models/dino", "hf:dino"),
        ("/home/me/resnet.pth", "resnet.pth"),
    ):
        assert without_folders({"encoder": {"weights": given}}) == {"encoder": {"weights": kept}}


class Tokens(torch.nn.Module):
    """A Vision Transformer with timm's interface: a class token before the cells."""

    num_features, num_prefix_tokens = 32, 1

    def __init__(self, img_size: int = 64) -> None:
        super().__init__()
        self.patch_embed = torch.nn.Conv2d(3, 32, 16, 16)
        self.pos_embed = torch.nn.Parameter(torch.randn(1, 1 + (img_size // 16) ** 2, 32))
        self.blocks = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU()) for _ in range(4)))
        self.norm = torch.nn.LayerNorm(32)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.pos_embed
        return self.norm(self.blocks(x))


class Map(torch.nn.Module):
    """A convolutional network with timm's interface, whose channels come last, as Swin's do."""

    num_features, num_prefix_tokens = 24, 0

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 4, 4)
        self.stages = torch.nn.Sequential(
            *(torch.nn.Sequential(torch.nn.Conv2d(i, o, 2, 2), torch.nn.ReLU()) for i, o in ((8, 8), (8, 16), (16, 24)))
        )

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(self.stem(x)).permute(0, 2, 3, 1)


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for timm, and a folder with its models as timm saves them for the Hub."""
    kinds = {"tokens": Tokens, "map": Map}

    def create_model(
        name: str,
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        num_classes: int = 1000,
        global_pool: str = "avg",
        **more: Any,
    ) -> torch.nn.Module:
        assert (num_classes, global_pool) == (0, "")
        network = kinds[name](**more)
        if pretrained:
            network.load_state_dict(load_file(pretrained_cfg["file"]))
        return network

    library = ModuleType("timm")
    library.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", library)
    stated = {"input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.5, 0.4, 0.3], "std": [0.2] * 3}
    for name, kind in kinds.items():
        torch.manual_seed(0)
        folder = tmp_path / "timm" / name
        folder.mkdir(parents=True)
        save_file(kind().state_dict(), folder / "model.safetensors")
        about = {"architecture": name, "num_classes": 1000, "pretrained_cfg": stated}
        (folder / "config.json").write_text(json.dumps(about))
    return tmp_path / "timm"


def test_a_network_of_timm_is_trained_and_exported(timm: Path, shapes: Path, tmp_path: Path) -> None:
    found = trained(f"timm:{timm / 'tokens'}", shapes, tmp_path, "encoder.trained=layer3")
    assert found.load_model().preprocessing == Preprocessing(
        size=64, resize="crop", crop=0.9, resample="bicubic", scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
    )
    bundle = tmp_path / "bundle"
    export(found, bundle)
    expected, given = features(found, bundle)
    assert given.shape == (3, 16, 32)
    assert np.allclose(given, expected, atol=1e-4 * np.abs(expected).max())
    caption_without_torch(bundle, 4)


def test_maps_of_timm_become_cells_of_any_size(timm: Path) -> None:
    small, large = (load_backbone(f"timm:{timm / 'map'}", size).network for size in (0, 96))
    pixels = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        given = large(pixels)
        assert torch.equal(given, large.network.forward_features(pixels).flatten(1, 2))
    assert (small.cells(64), large.cells(96), given.shape) == (4, 9, (2, 9, 24))
    assert [len(large.stage_parameters(stage)) for stage in range(1, 5)] == [0, 2, 2, 2]
    assert load_backbone(f"timm:{timm / 'tokens'}").network.cells(64) == 16
    (timm / "map" / "model.safetensors").rename(timm / "map" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"no model\.safetensors"):
        load_backbone(f"timm:{timm / 'map'}")
