"""Recipes: all settings of a training run, in one small TOML file that is checked when it is read.

`Recipe.load("flickr8k", ["training.epochs=20"])` reads a recipe of the folder `recipes`, or a .toml file by its path, and
applies overrides. An unknown key or a value out of range raises RecipeError. `showtell train --list RECIPE` prints each key's
description.
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from showtell.errors import RecipeError
from showtell.image import ImageSettings
from showtell.types import DecodeOptions

FOLDER = Path(__file__).parent / "recipes"

# Keys that do not change a run's figures: folders, messages, the interval of checkpoints.
MAY_CHANGE_ON_RESUME = {"about", "encoder.cache", "training.checkpoint_minutes", "training.patience"}

# Keys that hold paths of the machine that trains.
PATHS = {
    "init",
    "vocabulary.of",
    "encoder.weights",
    "encoder.bundle",
    "encoder.cache",
    "finetune.old_data",
    "distill.teachers",
    "text.files",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def _changed(self, *keys: str) -> list[str]:
        """Those of the keys whose values are not the default."""
        return [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]


class DataRecipe(_Section):
    """Photos that cannot be read; see train.inputs.usable."""

    skip_broken: bool = Field(
        False, description="leave out photos that cannot be read, and name them; otherwise they stop the run before it begins"
    )
    lenient: bool = Field(False, description="use the part that decodes of truncated or damaged photos")

    @property
    def images(self) -> ImageSettings:
        """How photos are read."""
        return ImageSettings(lenient=self.lenient)


class VocabularyRecipe(_Section):
    """The words of the captioner, and its caption styles."""

    text: Literal["ptb", "original", "characters"] = Field(
        "ptb",
        description="tokenizer: that of the metrics, that of the original project, or (Chinese) characters",
    )
    min_count: int = Field(5, ge=1, description="least count of a word in the train captions")
    styles: list[str] = Field(
        [], description="names of caption styles, one for each --data folder, the default first; empty: no styles"
    )
    of: str = Field("", description="run or checkpoint whose vocabulary a new decoder takes, as a distillation teacher must")


class TextRecipe(_Section):
    """Captions without photos that train photos borrow; see train.inputs.borrowing."""

    files: list[str] = Field(
        [],
        description="caption files, a JSON object a line: one, or one for each style; an empty name is no file",
    )
    captions: int = Field(4, ge=1, description="captions that each train photo borrows: those nearest to its own by CIDEr-D")


class EncoderRecipe(_Section):
    """The encoder: weights, photo size, feature cache, and the stages that are trained."""

    weights: str = Field(
        "",
        description='path of pretrained weights, or of a checkpoint to take the encoder from; "random" for random weights',
    )
    bundle: str = Field("", description="bundle, by name or folder, whose int8 form of this encoder computes the features")
    width: int = Field(64, ge=1, description="channels of the stem of an encoder with random weights; 64 is ResNet-50")
    size: int = Field(
        0,
        ge=0,
        multiple_of=32,
        description="pixels a side that photos are resized to; 0: the size that the weights were trained at",
    )
    cache: str = Field("", description="folder of all feature caches; empty: $XDG_CACHE_HOME/showtell/features")
    cached: bool = Field(
        True, description="cache features; false, or a trained layer3 or earlier: photos are read and encoded at each step"
    )
    trained: Literal["none", "layer4", "layer3", "layer2", "layer1"] = Field(
        "none", description="first stage that is trained; those after it are too"
    )
    learning_rate: float = Field(5e-5, gt=0, description="peak learning rate of the last stage, layer4")
    stage_decay: float = Field(1.0, gt=0, le=1, description="learning rate of a stage, as a share of the next stage's")

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        idle = self._changed("learning_rate", "stage_decay")
        if self.trained == "none" and idle:
            raise ValueError(f"encoder.{idle[0]} is for trained stages and there are none; set encoder.trained=layer4")
        if self.bundle and (self.trained != "none" or not self.cached):
            raise ValueError("encoder.bundle gives features of a frozen encoder; it needs encoder.trained=none and cached=true")
        return self


class ViewsRecipe(_Section):
    """Augmentation: views of the train photos, of which each epoch sees one a photo."""

    count: int = Field(
        1, ge=1, description="views of each train photo, the unchanged photo included; features of each view are cached"
    )
    flip: float = Field(
        0.5,
        ge=0,
        le=1,
        description="probability of a horizontal flip; photos whose captions say left or right are never flipped",
    )
    crop_min: float = Field(1.0, gt=0, le=1, description="least share of the photo's area in a crop")
    crop_max: float = Field(1.0, gt=0, le=1, description="largest share of the photo's area in a crop; 1 and 1: no crops")
    colour: float = Field(0.0, ge=0, lt=1, description="largest relative change of brightness, contrast and saturation")

    @model_validator(mode="after")
    def _check_crops(self) -> Self:
        if self.crop_min > self.crop_max:
            raise ValueError(f"views.crop_min {self.crop_min} is above crop_max {self.crop_max}")
        return self


class DecoderRecipe(_Section):
    """Kind, sizes and dropout of the decoder; see nn.attention_lstm.DecoderConfig and nn.merge_lstm.MergeConfig."""

    kind: Literal["attention-lstm", "merge"] = Field(
        "attention-lstm", description="soft attention at each word, or the original project's merge model"
    )
    hidden: int = Field(
        512, ge=1, description="hidden units of the LSTM; with attention-lstm also the size of the word embedding"
    )
    attention: int = Field(256, ge=1, description="units of the attention layer; attention-lstm only")
    embedding: int = Field(50, ge=1, description="size of the word embedding; merge only")
    word_dropout: float = Field(0.3, ge=0, lt=1, description="dropout of the word embeddings")
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="dropout of the hidden state before the output layer; with merge, of the photo's features",
    )
    feature_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout of feature channels, one mask a photo; attention-lstm only"
    )
    state_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="dropout of the recurrent state, one mask a caption; attention-lstm only",
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if foreign := self._changed(*self._of_the_other):
            raise ValueError(f"decoder.{foreign[0]} is no key of a decoder of kind {self.kind}; leave it out")
        return self

    @property
    def _of_the_other(self) -> tuple[str, ...]:
        return ("embedding",) if self.kind == "attention-lstm" else ("attention", "feature_dropout", "state_dropout")

    def sizes(self) -> dict[str, Any]:
        """The keys that the decoder's config has."""
        return self.model_dump(exclude=set(self._of_the_other))


class TrainingRecipe(_Section):
    """The objective, and AdamW under a one-cycle schedule."""

    objective: Literal["cross-entropy", "scst"] = Field(
        "cross-entropy", description="loss to minimise; scst (self-critical, on CIDEr-D) needs a trained model in init"
    )
    epochs: int = Field(14, ge=1, description="passes over the train photos")
    photos_per_batch: int = Field(
        32, ge=1, description="photos a step, each with all its captions, over all processes together"
    )
    accumulate: int = Field(
        1, ge=1, description="gradient accumulation: parts of a process's batch; more parts need less memory"
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of the decoder")
    warmup: float = Field(0.15, ge=0, lt=1, description="share of all steps in which the learning rate rises to its peak")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW, on matrices only")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing of the cross-entropy")
    consensus: float = Field(
        0.0,
        ge=0,
        description="loss weight of a caption = its CIDEr-D against the photo's other captions, to this power; 0 disables",
    )
    gradient_clip: float = Field(5.0, gt=0, description="largest norm of the gradient")
    max_words: int = Field(30, ge=1, description="longest caption in words; longer ones are cut, without an end token")
    max_photos: int = Field(0, ge=0, description="photos used of each split; 0: all")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of an exponential moving average of the weights, which is measured and saved; 0: none",
    )
    patience: int = Field(0, ge=0, description="early stopping: epochs without a better dev CIDEr; 0: never")
    divergence: float = Field(
        3.0,
        ge=0,
        description="stop when the loss is this far (nats a word) above its lowest; 0: only when it is not finite",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of matrix products, not of weights and losses; bfloat16 pays on GPUs and CPUs with AMX or AVX512-BF16",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda if available")
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="minutes between checkpoints inside an epoch; 0: only after epochs"
    )
    log_every: int = Field(10, ge=1, description="steps in each line of metrics.jsonl, which has their mean")


class ScstRecipe(_Section):
    """Self-critical sequence training, for training.objective = "scst"; see train.objectives.self_critical."""

    samples: int = Field(
        5, ge=2, description="captions sampled for each photo; the baseline of each is the mean reward of the others"
    )
    max_length: int = Field(20, ge=1, description="longest sample in words")
    cross_entropy_weight: float = Field(0.0, ge=0, description="weight of the cross-entropy that is added to the loss")


class DistillRecipe(_Section):
    """Distillation from trained models, with cross-entropy; see train.objectives.distillation."""

    teachers: list[str] = Field([], description="runs or checkpoints whose decoders teach; same encoder and vocabulary")
    weight: float = Field(
        0.5, gt=0, le=1, description="share of the teachers' distribution in the target; the rest is the caption's word"
    )


class FinetuneRecipe(_Section):
    """Fine-tuning of the model in `init`: new words and the photos it was trained on; see train.finetune."""

    new_words: bool = Field(
        False, description="add words with vocabulary.min_count occurrences in the train captions to the vocabulary of init"
    )
    old_data: str = Field(
        "", description="folder of the data that init was trained on, whose dev photos are measured before and after"
    )
    replay: float = Field(0.0, ge=0, description="old train photos mixed in, for each new photo")

    @model_validator(mode="after")
    def _check_replay(self) -> Self:
        if self.replay and not self.old_data:
            raise ValueError("finetune.replay mixes in old photos; name their folder with finetune.old_data")
        return self

    @property
    def active(self) -> bool:
        """Whether anything of this section is asked for."""
        return self.new_words or bool(self.old_data)


def _search_option(name: str) -> Any:
    """A key with the default, limits and description of the search option of that name."""
    option = DecodeOptions.__dataclass_fields__[name]
    about = option.metadata["about"]
    limits = {} if option.metadata["kind"] is bool else {"ge": option.metadata["low"], "le": option.metadata["high"]}
    return Field(option.default, description=about[0].lower() + about[1:].rstrip("."), **limits)


class ValidationRecipe(_Section):
    """Search settings for the dev photos. The best checkpoint has the highest CIDEr, among equals the lowest dev loss."""

    beam_size: int = _search_option("beam_size")
    length_penalty: float = _search_option("length_penalty")
    no_repeat_ngram: int = _search_option("no_repeat_ngram")
    no_repeat_words: bool = _search_option("no_repeat_words")
    max_length: int = _search_option("max_length")


class Recipe(_Section):
    """All settings of a training run."""

    about: str = Field("", description="purpose, for showtell train --list")
    seed: int = Field(1, ge=0, description="seed of all random draws")
    init: str = Field("", description="run or checkpoint to start from: its encoder, decoder, weights and vocabulary")
    data: DataRecipe = DataRecipe()
    vocabulary: VocabularyRecipe = VocabularyRecipe()
    text: TextRecipe = TextRecipe()
    encoder: EncoderRecipe = EncoderRecipe()
    views: ViewsRecipe = ViewsRecipe()
    decoder: DecoderRecipe = DecoderRecipe()
    training: TrainingRecipe = TrainingRecipe()
    scst: ScstRecipe = ScstRecipe()
    distill: DistillRecipe = DistillRecipe()
    finetune: FinetuneRecipe = FinetuneRecipe()
    validation: ValidationRecipe = ValidationRecipe()

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        wanted = max(1, len(self.vocabulary.styles))
        if self.text.files and len(self.text.files) != wanted:
            raise ValueError(f"text.files names {len(self.text.files)} files; there must be one for each style, here {wanted}")
        return self

    @model_validator(mode="after")
    def _check_objective(self) -> Self:
        if self.training.objective == "scst" and self.distill.teachers:
            raise ValueError("distill.teachers teach by cross-entropy; leave them out or set training.objective=cross-entropy")
        if self.training.objective != "scst" and self.scst != ScstRecipe():
            raise ValueError("the keys of scst are for training.objective=scst; set it or leave them out")
        return self

    @classmethod
    def load(cls, name: str, overrides: Sequence[str] = ()) -> Self:
        """The recipe called `name`, or in the .toml or .json file `name`, with overrides such as `training.epochs=20`."""
        path = Path(name) if name.endswith((".toml", ".json")) else FOLDER / f"{name}.toml"
        try:
            values = (json if path.suffix == ".json" else tomllib).loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecipeError(f"no recipe {name!r}; there are {', '.join(names())}, or give the path of a .toml file") from None
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise RecipeError(f"{path}: not valid {path.suffix[1:].upper()} ({error})") from None
        for override in overrides:
            _apply(values, override)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                hint = f"{_closest(key)}showtell train --list {name} has all keys"
                raise RecipeError(f"recipe {name}: unknown key {key!r}; {hint}") from None
            if first["type"] == "value_error":  # raised by a check of ours, which names its keys
                raise RecipeError(f"recipe {name}: {first['ctx']['error']}") from None
            raise RecipeError(f"recipe {name}: {key} is {first['input']!r}: {first['msg'].lower()}") from None

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Keys that change a run's figures and differ between this recipe and `other`, a recipe's `model_dump()`.

        Keys that `other` lacks, because an earlier version wrote it, have their defaults.
        """
        ours, theirs = dict(_flat(self.model_dump())), {**dict(_flat(Recipe().model_dump())), **dict(_flat(other))}
        return [key for key in ours | theirs if key not in MAY_CHANGE_ON_RESUME and ours.get(key) != theirs.get(key)]


def without_folders(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's `model_dump()` to publish: of each path only the last name."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = without_folders(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" in PATHS:
            value = Path(value).name if isinstance(value, str) else [Path(each).name for each in value]
        kept[name] = value
    return kept


@dataclass(frozen=True)
class Key:
    """A key of a recipe; sections with a dot."""

    name: str
    value: Any  # in the recipe, or by default
    allowed: str  # such as "at least 1", or empty
    description: str


def names() -> list[str]:
    """Names of the recipes that come with showtell."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def describe_recipes() -> str:
    """Every recipe with its purpose, one a line."""
    width = max(map(len, names()))
    lines = [f"{name:{width}}  {Recipe.load(name).about}" for name in names()]
    return "\n".join([*lines, "", "showtell train --list RECIPE shows a recipe's keys; --set KEY=VALUE changes one"])


def describe_keys(recipe: Recipe) -> str:
    """Every key with its value in `recipe`, its description, default and limits."""
    lines = []
    for key, default in zip(keys(recipe), keys(), strict=True):
        lines.append(f"{key.name} = {_toml(key.value)}")
        note = "; ".join([f"default {_toml(default.value)}", *([key.allowed] if key.allowed else [])])
        lines.append(f"    {key.description} ({note})")
    return "\n".join(lines)


def keys(recipe: Recipe | None = None) -> list[Key]:
    """Every key, with its value in `recipe` or by default."""
    return list(_keys(recipe or Recipe(), ""))


def _keys(section: BaseModel, prefix: str) -> Iterator[Key]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{prefix}{name}.")
            continue
        words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
        limits = [(words[kind], getattr(rule, kind)) for rule in field.metadata for kind in words if hasattr(rule, kind)]
        allowed = ", ".join(f"{word} {limit}" for word, limit in limits)
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        yield Key(f"{prefix}{name}", value, allowed or " | ".join(choices), field.description or "")


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # strings, numbers and lists of these look alike in both


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _closest(key: str) -> str:
    """A hint at the known key that is nearest to `key`, or an empty string."""
    known = [each.name for each in keys()]
    last = {name.rpartition(".")[2]: name for name in known}
    meant = difflib.get_close_matches(key, known, 1) or [last[m] for m in difflib.get_close_matches(key, last, 1)]
    return f"did you mean {meant[0]!r}? " if meant else ""


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
