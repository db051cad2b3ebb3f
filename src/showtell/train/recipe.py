"""Recipes: everything that a training run depends on, in one small checked TOML file.

`Recipe.load("flickr8k", ["training.epochs=20"])` reads a recipe of this folder (or a file of one's own) and applies
overrides. An unknown key or a value out of range is a RecipeError that names it.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from showtell.errors import RecipeError

FOLDER = Path(__file__).parent / "recipes"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VocabularyRecipe(_Section):
    """Which words the captioner can say."""

    min_count: int = Field(5, ge=1)  # times a word must occur in the train captions


class EncoderRecipe(_Section):
    """Where grid features come from."""

    weights: str = ""  # path of pretrained weights, or "random" where a recipe really means that
    width: int = Field(64, ge=1)  # channels of the stem, with random weights; 64 is ResNet-50
    cache: str = ""  # folder of the feature cache; empty: below $XDG_CACHE_HOME/showtell/features
    learning_rate: float = Field(0.0, ge=0)  # peak rate of the last stage (layer4); 0 freezes the whole encoder


class DecoderRecipe(_Section):
    """Sizes and dropout of the attention LSTM; see nn.attention_lstm.DecoderConfig."""

    hidden: int = Field(512, ge=1)  # LSTM state and word vectors
    attention: int = Field(256, ge=1)
    word_dropout: float = Field(0.3, ge=0, lt=1)
    dropout: float = Field(0.5, ge=0, lt=1)


class TrainingRecipe(_Section):
    """Teacher-forced cross-entropy with AdamW and a one-cycle schedule."""

    epochs: int = Field(14, ge=1)
    photos_per_batch: int = Field(32, ge=1)  # with all captions of each
    learning_rate: float = Field(1e-3, gt=0)  # the peak
    warmup: float = Field(0.15, ge=0, lt=1)  # share of all steps in which the rate rises to its peak
    weight_decay: float = Field(0.01, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    gradient_clip: float = Field(5.0, gt=0)  # largest norm of all gradients together
    max_words: int = Field(30, ge=1)  # longer captions are cut, and the cut is not taught as an end
    max_photos: int = Field(0, ge=0)  # only so many photos of each split; 0 is all


class ScstRecipe(_Section):
    """Self-critical sequence training as the last epochs of a run; see train.scst."""

    from_epoch: int = Field(0, ge=0, description="first epoch trained this way, from 1; 0 is none")
    learning_rate: float = Field(2e-5, gt=0, description="peak of the decoder's rate; an encoder's shrinks with it")
    samples: int = Field(5, ge=1, description="captions sampled for each photo at a step")
    baseline: Literal["samples", "greedy"] = Field(
        "samples", description="what a sample has to beat: the mean of the photo's other samples, or its greedy caption"
    )
    temperature: float = Field(1.0, gt=0, description="of sampling; below 1 samples are likelier captions")
    max_length: int = Field(20, ge=1, description="words after which a sample is broken off")
    bleu_weight: float = Field(0.0, ge=0, description="the reward is CIDEr-D + this x sentence BLEU-4, both as fractions")
    cross_entropy_weight: float = Field(0.0, ge=0, description="of the cross-entropy per word of the train captions")
    kl_weight: float = Field(0.0, ge=0, description="of KL(model || model before SCST) in nats per sampled word")

    @model_validator(mode="after")
    def _others(self) -> Self:
        if self.baseline == "samples" and self.samples < 2:
            raise ValueError("the baseline 'samples' needs scst.samples of 2 or more; or set scst.baseline=greedy")
        return self


class ValidationRecipe(_Section):
    """What is measured after each epoch; the checkpoint with the highest CIDEr is the best."""

    beam_size: int = Field(3, ge=1)
    length_penalty: float = Field(1.0, ge=0)
    no_repeat_ngram: int = Field(0, ge=0)
    max_length: int = Field(20, ge=1)


class Recipe(_Section):
    """A whole recipe. `seed` starts every random choice."""

    seed: int = 1
    init: str = ""  # a run or checkpoint to start from: its encoder, decoder sizes, weights and vocabulary
    vocabulary: VocabularyRecipe = VocabularyRecipe()
    encoder: EncoderRecipe = EncoderRecipe()
    decoder: DecoderRecipe = DecoderRecipe()
    training: TrainingRecipe = TrainingRecipe()
    scst: ScstRecipe = ScstRecipe()
    validation: ValidationRecipe = ValidationRecipe()

    @model_validator(mode="after")
    def _stages(self) -> Self:
        start = self.scst.from_epoch
        if start > self.training.epochs:
            raise ValueError(f"scst.from_epoch is {start}, after the last of {self.training.epochs} epochs; 0 is never")
        if start == 1 and not self.init:
            raise ValueError("scst.from_epoch is 1: SCST goes on from a trained model; give init, or a later epoch")
        return self

    @classmethod
    def load(cls, name: str, overrides: Sequence[str] = ()) -> Self:
        """The recipe called `name`, or in the file `name`, with `key=value` overrides such as `training.epochs=20`."""
        path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecipeError(f"no recipe {name!r}; there are {', '.join(names())}, or give the path of a .toml file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: not valid TOML ({error})") from None
        for override in overrides:
            _apply(values, override)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise RecipeError(f"recipe {name}: unknown key {key!r}; known are {', '.join(keys())}") from None
            if first["type"] == "value_error":  # raised by a check of ours, which names its keys
                raise RecipeError(f"recipe {name}: {first['ctx']['error']}") from None
            raise RecipeError(f"recipe {name}: {key} is {first['input']!r}: {first['msg'].lower()}") from None


def names() -> list[str]:
    """Names of the recipes that come with showtell."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def keys() -> list[str]:
    """Every key of a recipe, sections with a dot."""
    found = []
    for name, field in Recipe.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found += [f"{name}.{key}" for key in section.model_fields]
        else:
            found.append(name)
    return found


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set {override!r} is not of the form key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word or path is a string
    *sections, last = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override!r}: {section} is a value, not a section")
    values[last] = value
