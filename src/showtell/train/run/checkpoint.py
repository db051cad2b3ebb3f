"""Checkpoints: written atomically, verified by SHA-256.

    checkpoints/epoch-007/       after an epoch; epoch-000 is the start model of a run with `init`;
                                 checkpoints/step-0001234/ is from inside an epoch, without dev scores
        config.json          format, networks' configs, preprocessing, recipe, dev scores, progress of the run, files' SHA-256
        vocab.json           the words in id order
        model.safetensors    encoder.* and decoder.* parameters, float32; with `ema_decay`, of the moving average
        training.safetensors optimiser moments and raw weights, to resume from

A run keeps its two newest checkpoints and its best one. A bundle counts as a checkpoint wherever only a model is needed.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from showtell.bundle import MODELS
from showtell.errors import CheckpointError, OptionError, OutputError
from showtell.files import new_folder, sha256, write_json
from showtell.image import Preprocessing
from showtell.nn import decoders, encoders
from showtell.nn.model import CaptionModel
from showtell.nn.widen import widened_decoder, widened_encoder
from showtell.vocabulary import Vocabulary

FORMAT = 1
KEYS = ("epoch", "encoder", "decoder", "preprocessing", "recipe")


@dataclass(frozen=True)
class CheckpointConfig:
    """A checkpoint's config.json, checked. Keys of a run that a checkpoint may lack have defaults."""

    epoch: int  # counted from 1; the checkpoint is at its end or inside it
    encoder: Mapping[str, Any]
    decoder: Mapping[str, Any]
    preprocessing: Preprocessing
    recipe: Mapping[str, Any]
    step: int = 0  # optimiser steps from the beginning of the run
    scores: Mapping[str, float] = field(default_factory=dict)  # of dev, x100; none inside an epoch
    scores_by_style: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    dev_loss: float = math.inf
    progress: Mapping[str, Any] = field(default_factory=dict)  # see train.trainer.Progress
    data: str = ""
    encoder_weights: str = ""
    captions_sha256: str | None = None
    photos_sha256: str | None = None
    mean_of: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of each file

    @property
    def text_rule(self) -> str:
        """The tokenizer of the captions, a name of text.RULES."""
        return str(self.recipe["vocabulary"].get("text", "ptb"))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From the JSON object; keys that this version does not know are ignored. Raises KeyError for a missing one."""
        if "architecture" in values:  # a bundle's
            values = {"scores": values.get("training_scores", {}), **values, **values["architecture"]}
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        if missing := [key for key in KEYS if key not in known]:
            raise KeyError(missing[0])
        return cls(**{**known, "preprocessing": Preprocessing.from_json(known["preprocessing"])})


@dataclass(frozen=True)
class Checkpoint:
    """The folder of a checkpoint, or of a bundle, and its config."""

    path: Path
    config: CheckpointConfig

    @property
    def epoch(self) -> int:
        """The epoch, counted from 1, that ends with this checkpoint or that it is inside."""
        return self.config.epoch

    @property
    def step(self) -> int:
        """Optimiser steps from the beginning of the run."""
        return self.config.step

    @property
    def scores(self) -> dict[str, float]:
        """Dev scores x100; none inside an epoch."""
        return dict(self.config.scores)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Key that the best checkpoint has the largest of: dev CIDEr, then low dev loss, then an early epoch."""
        return self.scores["CIDEr"], -self.config.dev_loss, -self.epoch

    @property
    def is_bundle(self) -> bool:
        """Whether it is a bundle, which training may start from too."""
        return "encoder.onnx" in self.config.files

    def verify(self) -> None:
        """Checks the files' SHA-256. Raises CheckpointError where a file is missing or altered."""
        for name, digest in self.config.files.items():
            file = self.path / name
            try:
                found = sha256(file)
            except OSError as error:
                raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None
            if found != digest:
                raise CheckpointError(f"{file}: cut short or altered since it was written; take another checkpoint")

    def load_model(self) -> CaptionModel:
        """The captioner in float32, in evaluation mode; that of a bundle is widened.

        Raises CheckpointError where files are damaged or do not fit the config.
        """
        self.verify()
        vocabulary = Vocabulary.load(self.path / "vocab.json")
        try:
            encoder_config = encoders.read_config(self.config.encoder)
            decoder_config = decoders.read_config(self.config.decoder)
        except OptionError as error:
            raise CheckpointError(f"{self.path / 'config.json'}: {error}") from None
        if decoder_config.vocabulary != len(vocabulary):
            raise CheckpointError(
                f"{self.path}: the decoder has {decoder_config.vocabulary} words and vocab.json {len(vocabulary)}"
            )
        preprocessing = self.config.preprocessing
        if self.is_bundle:
            encoder = widened_encoder(encoder_config, self.path / "encoder.onnx")
            return CaptionModel(encoder, widened_decoder(decoder_config, self.path), vocabulary, preprocessing)
        model = CaptionModel(encoders.build(encoder_config), decoders.build(decoder_config), vocabulary, preprocessing)
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
    """Writes a checkpoint of the run in `folder`, then removes those that are not kept.

    It is an epoch's if `config` has scores. Raises OutputError where it cannot be written; earlier ones stay intact.
    """
    name = f"epoch-{config['epoch']:03d}" if "scores" in config else f"step-{config['step']:07d}"
    try:
        saved = write(folder / "checkpoints" / name, model, config, training)
    except OutputError as error:
        raise OutputError(f"{error}; the checkpoints before it are whole: make room and continue with --resume") from None
    found = _all(folder)
    kept = {checkpoint.path for checkpoint in found[-2:]}
    if any(checkpoint.scores for checkpoint in found):
        kept.add(best(folder).path)
    for checkpoint in found:
        if checkpoint.path not in kept:
            shutil.rmtree(checkpoint.path)
    return saved


def write(
    target: Path, model: CaptionModel, config: Mapping[str, Any], training: Mapping[str, Tensor] | None = None
) -> Checkpoint:
    """Writes a checkpoint to the folder `target`; without `training` it cannot be resumed.

    Raises OutputError where it cannot be written.
    """
    whole = {
        "format": FORMAT,
        **config,
        "encoder": asdict(model.encoder.config),
        "decoder": asdict(model.decoder.config),
        "preprocessing": asdict(model.preprocessing),
    }
    try:
        with new_folder(target) as temporary:
            _write_tensors(temporary / "model.safetensors", model.networks().state_dict())
            if training is not None:
                _write_tensors(temporary / "training.safetensors", training)
            model.vocabulary.save(temporary / "vocab.json")
            whole["files"] = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
            write_json(temporary / "config.json", whole)
    except SafetensorError as error:
        raise OutputError(f"{target}: cannot be written ({error})") from None
    return Checkpoint(target, CheckpointConfig.from_json(whole))


def size(model: CaptionModel, trained: int) -> int:
    """Estimated bytes of a checkpoint: the model, and moments and raw weights of `trained` parameters."""
    weights: int = sum(value.numel() * value.element_size() for value in model.networks().state_dict().values())
    return weights + 3 * 4 * trained


def exists(path: Path) -> bool:
    """Whether `find` has something to look at: a checkpoint, a run, a bundle or an installed bundle's name."""
    return (path / "checkpoints").is_dir() or any((folder / "config.json").is_file() for folder in (path, MODELS / path))


def find(path: Path) -> Checkpoint:
    """The checkpoint or bundle at `path`, the best checkpoint of the run at `path`, or the installed bundle of that name.

    Raises CheckpointError where it is none of these.
    """
    if not path.exists() and (MODELS / path / "config.json").is_file():
        path = MODELS / path
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such folder; give a run's folder, a checkpoint or bundle, or an installed bundle's name"
        )
    if (path / "config.json").is_file():
        return _read(path)
    return best(path)


def best(run: Path) -> Checkpoint:
    """The run's checkpoint with the highest dev CIDEr, and among equals the lowest dev loss."""
    found = [checkpoint for checkpoint in _all(run) if checkpoint.scores]
    if not found:
        raise CheckpointError(f"{run}: no checkpoint here of a whole epoch; give a run's folder or one of its checkpoints")
    return max(found, key=lambda checkpoint: checkpoint.rank)


def newest(run: Path, message: Callable[[str], None]) -> Checkpoint | None:
    """The run's newest whole checkpoint, or None where it has none.

    Damaged ones are renamed and reported to `message`. Only the process that trains may call this.
    """
    for unfinished in (run / "checkpoints").glob(".*.partial"):
        shutil.rmtree(unfinished)
    whole = []
    for path in _folders(run):
        try:
            checkpoint = _read(path)
            checkpoint.verify()
            whole.append(checkpoint)
        except CheckpointError as error:
            aside = path.with_name(f".{path.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            message(f"not used: {error}")
    return max(whole, key=_age, default=None)


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
    """Restores the state that `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _folders(run: Path) -> list[Path]:
    return [path for kind in ("epoch", "step") for path in sorted((run / "checkpoints").glob(f"{kind}-*")) if path.is_dir()]


def _all(run: Path) -> list[Checkpoint]:
    """The run's checkpoints, oldest first."""
    return sorted(map(_read, _folders(run)), key=_age)


def _age(checkpoint: Checkpoint) -> tuple[int, int]:
    return checkpoint.step, checkpoint.epoch  # checkpoints of earlier versions have no step


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)


def _read(path: Path) -> Checkpoint:
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise CheckpointError(f"{file}: checkpoint format {found!r}; this version reads {FORMAT}")
    try:
        return Checkpoint(path, CheckpointConfig.from_json(config))
    except KeyError as error:
        raise CheckpointError(f"{file}: the key {error.args[0]!r} is missing; take another checkpoint") from None
    except (OptionError, TypeError) as error:
        raise CheckpointError(f"{file}: {error}") from None
