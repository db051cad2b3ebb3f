"""Recipes: everything that a training run depends on, in one small checked TOML file.

`Recipe.load("flickr8k", ["training.epochs=20"])` reads a recipe of this folder (or a file of one's own) and applies
overrides. An unknown key or a value out of range is a RecipeError that names it. Each key's description is what
`showtell train --list RECIPE` prints.
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

FOLDER = Path(__file__).parent / "recipes"

# Keys that do not change a run's figures: where it keeps files, what it prints, how often it saves.
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
    """What becomes of photos that cannot be read; see train.inputs.usable."""

    skip_broken: bool = Field(
        False, description="leave out photos that cannot be read, and name them; otherwise nothing is trained"
    )
    lenient: bool = Field(False, description="take what decodes of photos that are cut short or damaged")

    @property
    def images(self) -> ImageSettings:
        """How photos are read."""
        return ImageSettings(lenient=self.lenient)


class VocabularyRecipe(_Section):
    """Which words the captioner can say."""

    text: Literal["ptb", "original", "characters"] = Field(
        "ptb",
        description="how captions are cut: as the metrics do, as the original project did, or into (Chinese) characters",
    )
    min_count: int = Field(5, ge=1, description="times a word must occur in the train captions")
    styles: list[str] = Field(
        [], description="names of caption styles, one for each --data folder, the default first; empty: all are of one style"
    )
    of: str = Field("", description="run or checkpoint whose words a new decoder has instead, as a teacher of that model must")


class TextRecipe(_Section):
    """Captions without photos that train photos borrow; see train.inputs.borrowing."""

    files: list[str] = Field(
        [],
        description="files of captions, a JSON object a line, one for each style, or one; an empty name: none for that style",
    )
    captions: int = Field(4, ge=1, description="captions of other photos that each train photo borrows, the most like its own")


class EncoderRecipe(_Section):
    """Where grid features come from."""

    weights: str = Field(
        "",
        description='path of pretrained weights or of a checkpoint whose encoder to take; "random" where that is really meant',
    )
    bundle: str = Field("", description="bundle of this encoder, by name or folder, whose int8 form computes the features")
    width: int = Field(64, ge=1, description="channels of the stem, with random weights; 64 is ResNet-50")
    size: int = Field(
        0, ge=0, multiple_of=32, description="pixels a side that photos are resized to; 0: as the weights have it, 224"
    )
    cache: str = Field("", description="folder of feature caches, one each below it; empty: $XDG_CACHE_HOME/showtell/features")
    cached: bool = Field(
        True, description="false: no cache, photos are read at each step; so in any case once layer2 or layer1 is trained"
    )
    trained: Literal["none", "layer4", "layer3", "layer2", "layer1"] = Field(
        "none", description="this stage of the ResNet and those after it are trained too"
    )
    learning_rate: float = Field(5e-5, gt=0, description="peak rate of the last stage, layer4, where it is trained")
    stage_decay: float = Field(1.0, gt=0, le=1, description="an earlier stage's rate is that of the next one times this")

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        idle = self._changed("learning_rate", "stage_decay")
        if self.trained == "none" and idle:
            raise ValueError(f"encoder.{idle[0]} is for trained stages and there are none; set encoder.trained=layer4")
        if self.bundle and (self.trained != "none" or not self.cached):
            raise ValueError("encoder.bundle gives features of a frozen encoder; it needs encoder.trained=none and cached=true")
        return self


class ViewsRecipe(_Section):
    """Augmented views of the train photos; each epoch sees one of each photo."""

    count: int = Field(1, ge=1, description="views of each train photo, the photo itself included; each is cached")
    flip: float = Field(0.5, ge=0, le=1, description="share of views mirrored; never where a caption says left or right")
    crop_min: float = Field(1.0, gt=0, le=1, description="share of the photo's area that a crop has at least")
    crop_max: float = Field(1.0, gt=0, le=1, description="share of the photo's area that a crop has at most; 1 and 1: no crops")
    colour: float = Field(0.0, ge=0, lt=1, description="brightness, contrast and saturation change by up to this share")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.crop_min > self.crop_max:
            raise ValueError(f"views.crop_min {self.crop_min} is above crop_max {self.crop_max}")
        return self


class DecoderRecipe(_Section):
    """Kind, sizes and dropout of the decoder; see nn.attention_lstm.DecoderConfig and nn.merge_lstm.MergeConfig."""

    kind: Literal["attention-lstm", "merge"] = Field(
        "attention-lstm", description="soft attention at each word, or the original project's merge model"
    )
    hidden: int = Field(512, ge=1, description="numbers in the LSTM's state and, with attention-lstm, in a word vector")
    attention: int = Field(256, ge=1, description="numbers in which query and grid cell are compared; attention-lstm only")
    embedding: int = Field(50, ge=1, description="numbers in a word vector; merge only")
    word_dropout: float = Field(0.3, ge=0, lt=1, description="share of the words' vectors set to 0 in training")
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share set to 0 in training of the state before it scores words; with merge, of the photo's features",
    )
    feature_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of a photo's feature channels set to 0 in training; attention-lstm only"
    )
    state_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the state set to 0 in training on its way to the next word; attention-lstm only",
    )

    @model_validator(mode="after")
    def _only_its_own(self) -> Self:
        if foreign := self._changed(*self._of_the_other):
            raise ValueError(f"decoder.{foreign[0]} is nothing that a decoder of kind {self.kind} has; leave it out")
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
        32, ge=1, description="photos, with all captions of each, that one step learns from, over all processes together"
    )
    accumulate: int = Field(
        1, ge=1, description="parts in which a process computes its share of a batch; more parts need less memory"
    )
    learning_rate: float = Field(1e-3, gt=0, description="the decoder's peak rate")
    warmup: float = Field(0.15, ge=0, lt=1, description="share of all steps in which the rate rises to its peak")
    weight_decay: float = Field(0.01, ge=0, description="of matrices, times the rate, each step")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of probability that targets give to all words alike")
    consensus: float = Field(
        0.0,
        ge=0,
        description="captions count in proportion to their CIDEr-D against the photo's other captions to this power; 0: alike",
    )
    gradient_clip: float = Field(5.0, gt=0, description="largest norm of all gradients together")
    max_words: int = Field(30, ge=1, description="words of a caption; longer ones are cut, and the cut is not taught as an end")
    max_photos: int = Field(0, ge=0, description="photos of each split that are used; 0 is all")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share that a moving average of the weights keeps each step; it is what is measured and saved; 0: none",
    )
    patience: int = Field(0, ge=0, description="stop after so many epochs without a better dev CIDEr; 0: never")
    divergence: float = Field(
        3.0,
        ge=0,
        description="stop when the loss is so much (nats a word) above the lowest so far; 0: only if not finite",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of products, not of weights and losses; bfloat16 pays on GPUs and on CPUs with AMX or AVX512-BF16",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is cuda where there is one")
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="minutes between checkpoints inside an epoch, what a kill can cost; 0: only after epochs"
    )
    log_every: int = Field(10, ge=1, description="steps that one line of metrics.jsonl is the mean of")


class ScstRecipe(_Section):
    """Self-critical sequence training, for training.objective = "scst"; see train.objectives.self_critical."""

    samples: int = Field(5, ge=2, description="captions sampled for each photo at a step; each has to beat the others' mean")
    max_length: int = Field(20, ge=1, description="words after which a sample is broken off")
    cross_entropy_weight: float = Field(0.0, ge=0, description="of the cross-entropy per word of the train captions")


class DistillRecipe(_Section):
    """Learning from trained models during cross-entropy; see train.objectives.distillation."""

    teachers: list[str] = Field([], description="runs or checkpoints of the same encoder and vocabulary whose decoders teach")
    weight: float = Field(0.5, gt=0, le=1, description="share of the targets that is theirs; the rest is the captions' words")


class FinetuneRecipe(_Section):
    """What becomes of words and old photos where a run goes on from `init`; see train.finetune."""

    new_words: bool = Field(
        False, description="add the words that occur vocabulary.min_count times in the train captions to those of init"
    )
    old_data: str = Field("", description="folder of the data that init was trained on: its dev photos are measured too")
    replay: float = Field(0.0, ge=0, description="old train photos mixed in, for each new one")

    @model_validator(mode="after")
    def _old_photos(self) -> Self:
        if self.replay and not self.old_data:
            raise ValueError("finetune.replay mixes in old photos; name their folder with finetune.old_data")
        return self

    @property
    def active(self) -> bool:
        """Whether anything of this section is asked for."""
        return self.new_words or bool(self.old_data)


class ValidationRecipe(_Section):
    """How the dev photos are captioned after each epoch; the checkpoint with the highest CIDEr is the best.

    Among equals it is the one with the lowest dev loss.
    """

    beam_size: int = Field(3, ge=1, description="hypotheses followed at once")
    length_penalty: float = Field(1.0, ge=0, description="0 ranks by total, 1 by mean log-probability")
    no_repeat_ngram: int = Field(0, ge=0, description="never repeat so many words in a row; 0 allows it")
    no_repeat_words: bool = Field(False, description="never say a word twice, but for those that people repeat")
    max_length: int = Field(20, ge=1, description="words of a caption at most")


class Recipe(_Section):
    """A whole recipe."""

    about: str = Field("", description="one line for showtell train --list")
    seed: int = Field(1, ge=0, description="starts every random choice")
    init: str = Field("", description="run or checkpoint to start from: its encoder, decoder sizes, weights and vocabulary")
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
    def _texts(self) -> Self:
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
        """Keys whose values differ from those of `other`, a recipe's `model_dump()`, in a way that changes a run's numbers.

        Keys that the version which wrote `other` did not have yet have their defaults.
        """
        ours, theirs = dict(_flat(self.model_dump())), {**dict(_flat(Recipe().model_dump())), **dict(_flat(other))}
        return [key for key in ours | theirs if key not in MAY_CHANGE_ON_RESUME and ours.get(key) != theirs.get(key)]


def without_folders(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's `model_dump()` fit to be given away: of each path only the last name."""
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
    """Every key with its value in `recipe`, its default, what is allowed and what it means."""
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
    """What someone who wrote `key` may have meant."""
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
