"""Vision backbones of transformers and timm as grid encoders: ViT, DINOv2, CLIP's and SigLIP's towers, ConvNeXt, ResNet.

`hf:ORG/NAME@REVISION` or `hf:FOLDER` names a model of transformers, `timm:NAME` or `timm:FOLDER` one of timm. Weights are read
from safetensors files alone, and no code that comes with a model runs. The config holds all that builds the network again, so
that a checkpoint needs the library and not the model's files; a bundle needs neither.

A Vision Transformer's blocks make four stages of equal depth here; what comes before them is never trained.
"""

import contextlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from showtell.errors import MissingExtraError, OptionError, WeightsError
from showtell.image import Preprocessing
from showtell.nn.encoder import STAGES, Encoder

PREFIXES = ("hf:", "timm:")
_RESAMPLING: Mapping[int, Any] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_SQUASHED = 384  # ConvNeXt's processor crops photos below this size alone


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """A backbone of a library, for photos of `size` pixels; `settings` are what the library builds it from.

    Its outputs are tokens, of which the first `prefix` are no cells (class and register tokens), or a map with its channels
    first or last.
    """

    kind: Literal["hf", "timm"]
    name: str
    settings: dict[str, Any]
    size: int
    cells: int = 0
    channels: int = 0
    layout: Literal["tokens", "channels-first", "channels-last"] = "tokens"
    prefix: int = 0


class Backbone(Encoder):
    """Pixels to grid features (B, cells, channels)."""

    def __init__(self, config: BackboneConfig, network: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.network = network or _EMPTY[config.kind](config)
        resized = config.kind == "hf" and config.size != getattr(self.network.config, "image_size", config.size)
        # An argument of the models whose position embeddings do not adapt by themselves.
        self._arguments = {"interpolate_pos_encoding": True} if resized and _takes_positions(self.network) else {}
        if not config.cells:
            self.config = _measured(config, self.outputs(torch.zeros(1, 3, config.size, config.size)), self.network)

    def outputs(self, pixels: Tensor) -> Tensor:
        """What the library's network gives: tokens (B, T, C), or a map (B, C, H, W) or (B, H, W, C)."""
        if self.config.kind == "hf":
            found: Tensor = self.network(pixel_values=pixels, **self._arguments).last_hidden_state
            return found
        return self.network.forward_features(pixels)  # type: ignore[operator,no-any-return]  # a method of timm's

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, size, size) to grid features (B, cells, channels)."""
        x = self.outputs(pixels)
        if self.config.layout == "channels-first":
            return x.flatten(2).transpose(1, 2)
        return x.flatten(1, 2) if self.config.layout == "channels-last" else x[:, self.config.prefix :]

    def cells(self, size: int) -> int:
        """Cells of the grid. Raises OptionError for another size than the network was built for."""
        if size != self.config.size:
            raise OptionError(f"{self.config.name} was built for photos of {self.config.size} pixels, not {size}")
        return int(self.config.cells)

    def stage_parameters(self, number: int) -> list[nn.Parameter]:
        """See Encoder. What follows the blocks belongs to the last stage; what the features do not depend on, to none."""
        used = self._used()
        blocks = _blocks(name for name, _ in self.network.named_parameters())
        found, stage = [], 0
        for name, parameter in self.network.named_parameters():
            place = next((place for place, block in enumerate(blocks) if name.startswith(f"{block}.")), None)
            if place is not None:
                stage = STAGES - (len(blocks) - 1 - place) * STAGES // len(blocks)
            if stage == number and name in used:
                found.append(parameter)
        return found

    def _used(self) -> set[str]:
        """The names of the parameters that the features depend on: no pooler or head."""
        parameters = dict(self.network.named_parameters())
        trained = {name: parameter.requires_grad for name, parameter in parameters.items()}
        self.network.requires_grad_(True)
        with torch.enable_grad():
            device = next(iter(parameters.values())).device
            total = self(torch.rand(1, 3, self.config.size, self.config.size, device=device)).sum()
            gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        for name, parameter in parameters.items():
            parameter.requires_grad_(trained[name])
        return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _blocks(names: Iterable[str]) -> list[str]:
    """The numbered modules that most of a network is made of, such as encoder.layer.0, in their order."""
    families: dict[str, list[str]] = {}
    for name in names:
        if (numbered := re.match(r"(.*?)\d+(?=\.)", name)) and numbered[0] not in families.setdefault(numbered[1], []):
            families[numbered[1]].append(numbered[0])
    return max(families.values(), key=lambda blocks: len(blocks), default=[])


@dataclass(frozen=True)
class Loaded:
    """A backbone with its weights, in evaluation mode, its preprocessing, and where the weights are from."""

    network: Backbone
    preprocessing: Preprocessing
    source: str


def load_backbone(name: str, size: int = 0) -> Loaded:
    """The backbone that `name` names, for photos of `size` pixels or of the size that its preprocessing states.

    Raises WeightsError where it cannot be loaded as an image encoder whose cells make a square, MissingExtraError where the
    library is not installed.
    """
    kind, _, model = name.partition(":")
    with _named_errors(name):
        return (_load_hf if kind == "hf" else _load_timm)(name, model, size)


def _load_hf(name: str, model: str, size: int) -> Loaded:
    transformers = _transformers()
    path, _, revision = (model, "", "") if Path(model).is_dir() else model.partition("@")
    common: dict[str, Any] = {"revision": revision or None, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(path, **common)
    config = getattr(config, "vision_config", config)  # of models of pictures and texts the vision tower alone
    preprocessing = _of_processor(transformers.AutoImageProcessor.from_pretrained(path, **common).to_dict())
    preprocessing = replace(preprocessing, size=size or preprocessing.size)
    network, report = _class_of(config).from_pretrained(
        path, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **common
    )
    settings = {key: value for key, value in json.loads(config.to_json_string()).items() if key not in _VARYING}
    backbone = Backbone(BackboneConfig("hf", _published(name), settings, preprocessing.size), network.eval())
    return _checked(backbone, report["missing_keys"], preprocessing)


_NO_GRAPH = {"swin"}
_VARYING = ("transformers_version", "_name_or_path", "dtype", "architectures")  # no part of the network


def _empty_hf(config: BackboneConfig) -> nn.Module:
    settings = dict(config.settings)
    made = _transformers().AutoConfig.for_model(settings.pop("model_type"), **settings)
    network: nn.Module = _class_of(made)(made)
    return network.eval()


def _class_of(config: Any) -> Any:
    """transformers' network for a config of its."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if config.model_type in _NO_GRAPH:
        raise ValueError("torch cannot write this network as an ONNX graph, so it could be trained but not exported")
    if type(config) not in MODEL_MAPPING:
        raise ValueError(f"transformers has no network for {type(config).__name__}")
    return MODEL_MAPPING[type(config)]


def _of_processor(values: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing that a preprocessor_config.json states. Raises ValueError where showtell.image does it otherwise."""
    size, crop = values.get("size") or {}, values.get("crop_size") or {}
    sides = {side for side in (size.get("height"), size.get("width"), size.get("shortest_edge")) if side}
    share = None
    if values.get("do_center_crop"):
        sides, shorter = {crop.get("height"), crop.get("width")}, size.get("shortest_edge")
        share = crop.get("height", 0) / shorter if shorter else None
    elif values.get("crop_pct") and size.get("shortest_edge", _SQUASHED) < _SQUASHED:
        share = values["crop_pct"]
    elif "shortest_edge" in size and not values.get("crop_pct"):
        raise ValueError("its preprocessing keeps the shape of photos, and the grid must be a square")
    if len(sides) != 1 or not values.get("do_resize", True) or (values.get("do_center_crop") and not share):
        raise ValueError(f"its preprocessing does not make squares: size {size}, crop {crop}")
    if values.get("resample") not in _RESAMPLING:
        raise ValueError(f"its preprocessing has resample {values.get('resample')!r}; {_RESAMPLING} are known")
    normalised = values.get("do_normalize", True)
    return Preprocessing(
        size=int(sides.pop()),
        resize="crop" if share else "squash",
        crop=min(1.0, share or 1.0),
        resample=_RESAMPLING[values["resample"]],
        scale=float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0,
        mean=tuple(values["image_mean"]) if normalised else (0.0, 0.0, 0.0),
        std=tuple(values["image_std"]) if normalised else (1.0, 1.0, 1.0),
    )


def _load_timm(name: str, model: str, size: int) -> Loaded:
    timm = _timm()
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        repository, _, revision = (model if "/" in model else f"timm/{model}").partition("@")
        files = ["config.json", "model.safetensors"]
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=files))
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError("it has no model.safetensors, and weights of other kinds are not loaded")
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stated = about["pretrained_cfg"]
    preprocessing = _of_pretrained_cfg(stated)
    preprocessing = replace(preprocessing, size=size or preprocessing.size)
    settings = {"architecture": about["architecture"], "resized": preprocessing.size != stated["input_size"][-1]}
    config = BackboneConfig("timm", _published(name), settings, preprocessing.size)
    overlay = {**stated, "file": str(weights), "custom_load": False, "num_classes": about.get("num_classes", 1000)}
    network = _create(timm, config, pretrained=True, pretrained_cfg=overlay)
    return _checked(Backbone(config, network), (), preprocessing)


def _empty_timm(config: BackboneConfig) -> nn.Module:
    return _create(_timm(), config, pretrained=False)


def _create(timm: Any, config: BackboneConfig, **more: Any) -> nn.Module:
    architecture, resized = config.settings["architecture"], config.settings["resized"]
    common = {"num_classes": 0, "global_pool": "", **more}
    network: nn.Module
    try:
        network = timm.create_model(architecture, **common, **({"img_size": config.size} if resized else {}))
    except TypeError:  # convolutional networks take any size, and no argument for it
        network = timm.create_model(architecture, **common)
    return network.eval()


def _of_pretrained_cfg(values: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing that timm's pretrained_cfg states. Raises ValueError where showtell.image does it otherwise."""
    channels, height, width = values["input_size"]
    if channels != 3 or height != width:
        raise ValueError(f"its input_size is {values['input_size']}; photos are squares of three channels")
    if (mode := values.get("crop_mode", "center")) not in ("center", "squash"):
        raise ValueError(f"its crop_mode is {mode!r}; center and squash are known")
    return Preprocessing(
        size=height,
        resize="crop" if mode == "center" else "squash",
        crop=float(values.get("crop_pct") or 0.875) if mode == "center" else 1.0,
        resample=values.get("interpolation", "bicubic"),
        scale=1 / 255,
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
    )


_EMPTY = {"hf": _empty_hf, "timm": _empty_timm}


def _checked(backbone: Backbone, missing: Any, preprocessing: Preprocessing) -> Loaded:
    """The backbone, once all weights that its features depend on are known; the others become zeros, always the same."""
    used = backbone._used()
    if absent := sorted(used.intersection(missing)):
        raise ValueError(f"its file lacks the weights {absent[0]}")
    with torch.no_grad():
        for name, parameter in backbone.network.named_parameters():
            if name not in used:
                parameter.zero_()
    return Loaded(backbone.eval(), preprocessing, backbone.config.name)


@torch.no_grad()
def _measured(config: BackboneConfig, outputs: Tensor, network: nn.Module) -> BackboneConfig:
    """The config with the form of the outputs. Raises ValueError where they are no square grid."""
    if outputs.ndim == 4:
        last = outputs.shape[1] != getattr(network, "num_features", outputs.shape[1])
        cells = outputs.shape[1] * outputs.shape[2] if last else outputs.shape[2] * outputs.shape[3]
        channels = outputs.shape[3 if last else 1]
        return replace(config, cells=cells, channels=channels, layout="channels-last" if last else "channels-first")
    tokens = outputs.shape[1]
    cells, prefix = tokens, getattr(network, "num_prefix_tokens", None)  # as timm says it
    if prefix is None:
        patch = getattr(network.config, "patch_size", None)
        cells = min(tokens, (config.size // patch) ** 2) if isinstance(patch, int) else tokens
        prefix = tokens - cells
    cells = tokens - prefix
    if isqrt(cells) ** 2 != cells:
        raise ValueError(f"its {tokens} outputs for a photo of {config.size} pixels are no square grid")
    return replace(config, cells=cells, channels=outputs.shape[2], prefix=prefix)


def _takes_positions(network: nn.Module) -> bool:
    return "interpolate_pos_encoding" in inspect.signature(network.forward).parameters


def _published(name: str) -> str:
    """The name without the folder of the machine that trains."""
    kind, _, model = name.partition(":")
    return f"{kind}:{Path(model).resolve().name}" if Path(model).is_dir() else name


def _transformers() -> Any:
    return _library("transformers", "hf")


def _timm() -> Any:
    return _library("timm", "timm")


def _library(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise MissingExtraError(extra, f"an encoder of {name}") from None
        raise WeightsError(f"{name} cannot be imported ({error}); mend its installation") from None


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turns what the libraries raise for a model that they cannot load into a WeightsError that names it."""
    logging: Any = None
    with contextlib.suppress(ImportError):
        logging = import_module("transformers.utils.logging")
        level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()  # it lists the weights of a text tower as unexpected
        logging.disable_progress_bar()
    try:
        yield
    except (MissingExtraError, WeightsError):
        raise
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{name}: cannot be loaded as an image encoder ({reason}); give hf:ORG/NAME, timm:NAME, or a folder "
            "with the model's config, safetensors and preprocessing"
        ) from None
    finally:
        if logging:
            logging.set_verbosity(level)
            if shown:
                logging.enable_progress_bar()
