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

    text: Literal["ptb", "seed"] = "ptb"  # how captions are cut: as the metrics do, or as the original project did
    min_count: int = Field(5, ge=1)  # times a word must occur in the train captions


class EncoderRecipe(_Section):
    """Where grid features come from."""

    weights: str = ""  # path of pretrained weights, or "random" where a recipe really means that
    width: int = Field(64, ge=1)  # channels of the stem, with random weights; 64 is ResNet-50
    cache: str = ""  # folder of feature caches, one folder each; empty: $XDG_CACHE_HOME/showtell/features
    cached: bool = True  # false: read photos and compute their features at every step; so in any case where layer2 is trained
    trained: Literal["none", "layer4", "layer3", "layer2", "layer1"] = "none"  # this stage and those after it are trained
    learning_rate: float = Field(5e-5, gt=0)  # peak rate of the last stage, layer4, where it is trained
    stage_decay: float = Field(1.0, gt=0, le=1)  # an earlier stage's rate is that of the next times this
    from_epoch: int = Field(1, ge=1)  # the epoch, counted from 1, in which the encoder begins to be trained

    @model_validator(mode="after")
    def _rates_of_something(self) -> Self:
        idle = self.model_fields_set & {"learning_rate", "stage_decay", "from_epoch"}
        if self.trained == "none" and idle:
            raise ValueError(f"{min(idle)} acts on trained stages and none is; set encoder.trained=layer4, or leave it out")
        return self


class ViewsRecipe(_Section):
    """Augmented views of the train photos; each epoch sees one of each photo."""

    count: int = Field(1, ge=1)  # views of each photo, the photo itself included; features of all are cached
    flip: float = Field(0.5, ge=0, le=1)  # probability of a mirrored view; never where a caption says left or right
    crop_min: float = Field(1.0, gt=0, le=1)  # share of the photo's area that a crop has at least
    crop_max: float = Field(1.0, gt=0, le=1)  # and at most; 1 and 1 is no crop
    colour: float = Field(0.0, ge=0, lt=1)  # brightness, contrast and saturation change by up to this factor; 0 is not at all

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.crop_min > self.crop_max:
            raise ValueError(f"crop_min {self.crop_min} is above crop_max {self.crop_max}")
        return self


class DecoderRecipe(_Section):
    """Kind, sizes and dropout of the decoder; see nn.attention_lstm.DecoderConfig and nn.merge.MergeConfig."""

    kind: Literal["attention-lstm", "merge"] = "attention-lstm"
    hidden: int = Field(512, ge=1)  # size of the LSTM's state and, with attention-lstm, of word vectors
    attention: int = Field(256, ge=1)  # size of attention's keys; attention-lstm alone
    embedding: int = Field(50, ge=1)  # size of word vectors; merge alone
    word_dropout: float = Field(0.3, ge=0, lt=1)  # of the words read, in training
    dropout: float = Field(0.5, ge=0, lt=1)  # of the state that scores words, or with merge of the photo's features

    @model_validator(mode="after")
    def _only_its_own(self) -> Self:
        other = "embedding" if self.kind == "attention-lstm" else "attention"
        if other in self.model_fields_set:
            raise ValueError(f"{other} is not a size of a decoder of kind {self.kind}; leave it out")
        return self

    def sizes(self) -> dict[str, Any]:
        """The keys that the decoder's config has."""
        return self.model_dump(exclude={"embedding" if self.kind == "attention-lstm" else "attention"})


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
    views: ViewsRecipe = ViewsRecipe()
    decoder: DecoderRecipe = DecoderRecipe()
    training: TrainingRecipe = TrainingRecipe()
    validation: ValidationRecipe = ValidationRecipe()

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
