"""Checkpoints: one folder an epoch, whole or absent.

    checkpoints/epoch-007/
        config.json          format, networks' configs, preprocessing, recipe, origin of the weights, dev scores
        vocab.json           the words in id order
        model.safetensors    encoder.* and decoder.* parameters, float32
        training.safetensors optimiser moments and random state, to go on from here

A folder is written under another name, flushed to disk and renamed, so that one called epoch-NNN is complete. Only the last
and the best by dev CIDEr are kept.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from showtell.errors import CheckpointError, OptionError
from showtell.files import sync, write_json
from showtell.image import Preprocessing
from showtell.nn import decoders
from showtell.nn.captioner import CaptionModel
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.vocab import Vocabulary

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and the contents of its config.json."""

    path: Path
    config: dict[str, Any]

    @property
    def epoch(self) -> int:
        """Number of epochs trained, from 1."""
        return int(self.config["epoch"])

    @property
    def scores(self) -> dict[str, float]:
        """Dev scores x100."""
        return dict(self.config["scores"])

    def load_model(self) -> CaptionModel:
        """The captioner, in evaluation mode. Raises CheckpointError where the weights do not fit the config."""
        vocabulary = Vocabulary.load(self.path / "vocab.json")
        encoder_config = {**self.config["encoder"], "blocks": tuple(self.config["encoder"]["blocks"])}
        try:
            decoder_config = decoders.read_config(self.config["decoder"])
        except OptionError as error:
            raise CheckpointError(f"{self.path / 'config.json'}: {error}") from None
        if decoder_config.vocabulary != len(vocabulary):
            raise CheckpointError(
                f"{self.path}: the decoder has {decoder_config.vocabulary} words and vocab.json {len(vocabulary)}"
            )
        model = CaptionModel(
            ResNet(ResNetConfig(**encoder_config)),
            decoders.build(decoder_config),
            vocabulary,
            Preprocessing.from_json(self.config["preprocessing"]),
        )
        networks = model.networks()
        try:
            networks.load_state_dict(load_tensors(self.path / "model.safetensors"))
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.path}: weights do not fit config.json: {str(error).splitlines()[-1].strip()}"
            ) from None
        networks.eval()
        return model


def save(folder: Path, model: CaptionModel, config: Mapping[str, Any], training: Mapping[str, Tensor]) -> Checkpoint:
    """Writes checkpoints/epoch-NNN of the run in `folder`, then removes what is neither last nor best."""
    target = folder / "checkpoints" / f"epoch-{config['epoch']:03d}"
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    whole = {
        "format": FORMAT,
        **config,
        "encoder": asdict(model.encoder.config),
        "decoder": asdict(model.decoder.config),
        "preprocessing": asdict(model.preprocessing),
    }
    save_file({n: v.contiguous() for n, v in model.networks().state_dict().items()}, temporary / "model.safetensors")
    save_file({n: v.contiguous() for n, v in training.items()}, temporary / "training.safetensors")
    model.vocabulary.save(temporary / "vocab.json")
    write_json(temporary / "config.json", whole)
    for file in temporary.iterdir():
        sync(file)
    sync(temporary)
    temporary.rename(target)
    sync(target.parent)
    kept = {target, best(folder).path}
    for checkpoint in _all(folder):
        if checkpoint.path not in kept:
            shutil.rmtree(checkpoint.path)
    return Checkpoint(target, whole)


def find(path: Path) -> Checkpoint:
    """The checkpoint at `path`, or the best one where `path` is a run's folder."""
    if (path / "config.json").is_file():
        return _read(path)
    return best(path)


def best(run: Path) -> Checkpoint:
    """The run's checkpoint with the highest dev CIDEr, the earlier of equals."""
    return max(_some(run), key=lambda c: (c.scores["CIDEr"], -c.epoch))


def newest(run: Path) -> Checkpoint | None:
    """The run's newest checkpoint, or None where it has none yet."""
    return max(_all(run), key=lambda c: c.epoch, default=None)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises CheckpointError where it is missing or broken."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error})") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors, `<parameter>.<what>`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": torch.as_tensor(value) for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts what `optimizer_tensors` gave back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _some(run: Path) -> list[Checkpoint]:
    checkpoints = _all(run)
    if not checkpoints:
        raise CheckpointError(f"{run}: no checkpoint here; give a run's folder or one of its checkpoints/epoch-NNN")
    return checkpoints


def _all(run: Path) -> list[Checkpoint]:
    return [_read(path) for path in sorted((run / "checkpoints").glob("epoch-*")) if path.is_dir()]


def _read(path: Path) -> Checkpoint:
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise CheckpointError(f"{file}: checkpoint format {found!r}; this version reads {FORMAT}")
    return Checkpoint(path, config)
