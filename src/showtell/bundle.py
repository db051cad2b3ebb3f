"""A bundle: one folder with everything that captioning needs, and no pickle.

    config.json     format, architecture, preprocessing, search defaults, licence, data, recipe, scores, SHA-256 of each file
    vocab.json      the words in id order
    encoder.onnx    pixels (B, 3, size, size) float32 -> features (B, cells, channels) float32
    prepare.onnx    features -> values, keys and the like (`prepared`), and the first state; once a photo
    step.onnx       tokens (B, K) int64, prepared, state -> log_probs (B, K, V), new state, perhaps attention (B, K, cells)
    confidence.npz  labels and principal components (`showtell.confidence`); not every bundle has it
    model-card.md   for people: what the model was trained on, is for and fails at; not every bundle has one

The embedded model is the bundle in `showtell/models/<EMBEDDED>`.
"""

import difflib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, Unpack

from showtell.confidence import Confidence
from showtell.confidence import model as confidence
from showtell.decoding import Constraints, SearchTokens, contains
from showtell.errors import BundleError, OptionError, ShowtellError
from showtell.files import sha256, write_json
from showtell.image import Preprocessing
from showtell.text import RULES, TextRule
from showtell.text.words import plurals, takes_an
from showtell.types import DecodeOptions, SearchOptions, from_json
from showtell.vocabulary import SPECIAL, Vocabulary

FORMAT = 1
FILES = ("vocab.json", "encoder.onnx", "prepare.onnx", "step.onnx")
CARD = "model-card.md"
OPTIONAL = (confidence.FILE, CARD)
MODELS = Path(__file__).parent / "models"
EMBEDDED = "lite2-lstm-general"


@dataclass(frozen=True)
class BundleConfig:
    """A bundle's config.json, checked. `scores` are x100 by split, data set and metric."""

    name: str
    encoder: Mapping[str, Any]
    decoder: Mapping[str, Any]
    preprocessing: Preprocessing
    search: DecodeOptions
    files: Mapping[str, str]  # SHA-256 of each file
    licence: str
    quantization: Literal["none", "int8"]
    data: str
    text_rule: str  # the tokenizer of the captions it was trained on, of text.RULES
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    confidence: confidence.Parameters | None  # None where the model cannot say how sure a caption is
    json: Mapping[str, Any]  # all of it, as read

    @classmethod
    def read(cls, path: Path) -> Self:
        """The config in the file `path`. Raises BundleError where it is not one of this format."""
        try:
            json_ = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleError(
                f"{path.parent}: no config.json here; a bundle is a folder that `showtell export` writes"
            ) from None
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: not readable ({error})") from None
        number = json_.get("format") if isinstance(json_, dict) else None
        if number != FORMAT:
            raise BundleError(f"{path}: bundle format {number!r}; this version of showtell reads format {FORMAT}")
        try:
            return cls(
                name=json_["name"],
                encoder=json_["architecture"]["encoder"],
                decoder=json_["architecture"]["decoder"],
                preprocessing=Preprocessing.from_json(json_["preprocessing"]),
                search=DecodeOptions.from_json(json_["search"]),
                files=json_["files"],
                licence=json_.get("licence", ""),
                quantization=json_.get("quantization", "none"),
                data=json_.get("data", ""),
                text_rule=json_.get("recipe", {}).get("vocabulary", {}).get("text", "ptb"),
                scores={split: json_[f"{split}_scores"] for split in ("train", "dev", "test") if f"{split}_scores" in json_},
                confidence=from_json(confidence.Parameters, json_["confidence"], "confidence parameter")
                if "confidence" in json_
                else None,
                json=json_,
            )
        except KeyError as error:
            raise BundleError(f"{path}: the key {error.args[0]!r} is missing; export the model again") from None
        except (ShowtellError, TypeError, AttributeError) as error:
            raise BundleError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have the SHA-256 in its config."""

    folder: Path
    config: BundleConfig
    vocabulary: Vocabulary
    confidence: Confidence | None = None

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.config.name

    @property
    def preprocessing(self) -> Preprocessing:
        """The encoder's preprocessing."""
        return self.config.preprocessing

    @property
    def search(self) -> DecodeOptions:
        """The default search options."""
        return self.config.search

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """The bundle in `folder`. Raises BundleError where a file is missing or altered, or the format is another."""
        folder = Path(folder)
        path = folder / "config.json"
        if (folder / "model.safetensors").exists() or (folder / "checkpoints").is_dir():
            what = "checkpoint" if path.exists() else "training run"
            command = f"showtell export {shlex.quote(str(folder))} --output BUNDLE_DIR"
            raise BundleError(f"{folder}: a {what}, not a bundle; export it first: {command}")
        config = BundleConfig.read(path)
        for name in [*FILES, *(name for name in OPTIONAL if name in config.files)]:
            if name not in config.files:
                raise BundleError(f"{path}: the key {name!r} is missing; export the model again")
            _check(folder / name, config.files[name])
        try:
            known = (
                Confidence.load(folder, config.confidence) if config.confidence and confidence.FILE in config.files else None
            )
            bundle = cls(folder, config, Vocabulary.load(folder / "vocab.json"), known)
        except ShowtellError as error:
            raise BundleError(f"{path}: {error}") from None
        words = config.decoder.get("vocabulary")
        if words != len(bundle.vocabulary):
            raise BundleError(f"{folder}: the decoder has {words} words and vocab.json {len(bundle.vocabulary)}")
        return bundle

    def options(self, **changes: Unpack[SearchOptions]) -> DecodeOptions:
        """The search options with every change that is not None. Raises OptionError for a value that is not allowed."""
        options = self.search.updated(**changes)
        self.check(options)
        return options

    def check(self, options: DecodeOptions) -> None:
        """Raises OptionError where the model lacks the style or a word, or cannot caption as asked for."""
        start = self.search_tokens(options).start
        constraints = self.constraints(options.include, options.avoid)
        length = len(start) + sum(len(phrase) for phrase, *_ in constraints.include)
        if options.max_length < length + (not constraints.include):
            raise OptionError(f"max_length is {options.max_length}, and start_with= and include= take {length} words; raise it")
        for phrase in constraints.avoid:
            if contains(start, phrase):
                word = " ".join(self.vocabulary.decode(phrase))
                raise OptionError(f"start_with is {options.start_with!r}, and {word} is to be avoided; leave one out")
        words = len(self.vocabulary) - len(SPECIAL)
        if not options.sample and options.beam_size > words + 1:  # or the end
            raise OptionError(
                f"beam_size is {options.beam_size}; this model knows {words} words, and more beams have nothing to follow"
            )

    @property
    def text_rule(self) -> TextRule:
        """How captions became the tokens that the model learned."""
        return RULES[self.config.text_rule]

    def search_tokens(self, options: DecodeOptions) -> SearchTokens:
        """The ids that a search begins and ends with. Raises OptionError where the model lacks the style or a word."""
        tokens = self.vocabulary.search_tokens(options.style)
        return replace(tokens, start=self._phrase(options.start_with, "start_with")) if options.start_with else tokens

    def constraints(self, include: Sequence[str] = (), avoid: Sequence[str] = ()) -> Constraints:
        """Constraints by words or phrases: each of `include` as it is written, none of `avoid` nor its plural.

        Raises OptionError where the model does not know a word, and where one is both included and avoided.
        """
        included = [self._phrase(words, "include") for words in include]
        avoided: dict[tuple[int, ...], str] = {}
        for words in avoid:
            phrase = self._phrase(words, "avoid")
            ids, word = self.vocabulary.ids, self.vocabulary.words[phrase[-1]]
            forms = [phrase, *((*phrase[:-1], ids[plural]) for plural in plurals(word) if plural in ids)]
            avoided |= dict.fromkeys(forms, words)
        for words, phrase in zip(include, included, strict=True):
            for barred, cause in avoided.items():
                if contains(phrase, barred):
                    raise OptionError(f"include is {words!r}, and avoid= has {cause!r}, which bars plurals too; leave one out")
        # The model would rather say "a umbrella". "an umbrella" has a beam of its own, or no hypothesis would say "an" in time.
        a, an = (self.vocabulary.ids.get(word, 0) for word in ("a", "an"))
        vowels = [phrase for phrase in included if a and an and takes_an(self.vocabulary.words[phrase[0]])]
        sets = tuple((phrase, (an, *phrase)) if phrase in vowels else (phrase,) for phrase in included)
        return Constraints(sets, (*avoided, *((a, phrase[0]) for phrase in vowels)))

    def _phrase(self, words: str, option: str) -> tuple[int, ...]:
        """The ids of some words. Raises OptionError, which names the option, where the model does not know them all."""
        tokens, ids = self.text_rule.tokenize(words), self.vocabulary.ids
        for token in tokens:
            if token not in ids or token.startswith("<"):  # a special token, or a style
                near = difflib.get_close_matches(token, ids)
                hint = f"; it knows {', '.join(near)}" if near else ""
                raise OptionError(f"{option} is {words!r}; this model does not know the word {token!r}{hint}")
        if not tokens:
            raise OptionError(f"{option} is {words!r}; it must have a word")
        return tuple(ids[token] for token in tokens)

    @classmethod
    def find(cls, model: str | Path | None) -> Self:
        """The bundle of that name or in that folder; None is the embedded model."""
        if model is None:
            return cls.read(MODELS / EMBEDDED)
        if isinstance(model, str) and (MODELS / model / "config.json").is_file():
            return cls.read(MODELS / model)
        if not Path(model).is_dir():
            have = ", ".join(sorted(path.parent.name for path in MODELS.glob("*/config.json")))
            raise BundleError(f"{model}: no such bundle; give the folder of one, or a name: {have or 'none is embedded'}")
        return cls.read(model)


def write_config(
    folder: Path,
    *,
    name: str,
    architecture: Mapping[str, Any],
    preprocessing: Preprocessing,
    search: DecodeOptions,
    about: Mapping[str, Any],
) -> None:
    """Completes a bundle: writes config.json, with the hashes of the files beside it. `about` adds licence, data and scores."""
    files = [*FILES, *(name for name in OPTIONAL if (folder / name).exists())]
    config = {
        "format": FORMAT,
        "name": name,
        "architecture": dict(architecture),
        "preprocessing": preprocessing.to_json(),
        "search": asdict(search),
        **about,
        "files": {file: sha256(folder / file) for file in files},
    }
    write_json(folder / "config.json", config)


def keep_scores(bundle: Bundle, split: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Writes a bundle's scores x100 on a split of some data sets, by their names, into its config.json as `SPLIT_scores`."""
    rounded = {data: {name: round(value, 2) for name, value in found.items()} for data, found in scores.items()}
    write_json(bundle.folder / "config.json", {**bundle.config.json, f"{split}_scores": rounded})


def keep_confidence(bundle: Bundle, found: Confidence) -> Bundle:
    """Writes a bundle's confidence model beside its graphs; returns the bundle with it. Raises OutputError."""
    found.save(bundle.folder)
    files = {**bundle.config.files, confidence.FILE: sha256(bundle.folder / confidence.FILE)}
    write_json(bundle.folder / "config.json", {**bundle.config.json, "confidence": found.to_json(), "files": files})
    return Bundle.read(bundle.folder)


def _check(path: Path, expected: str) -> None:
    try:
        found = sha256(path)
    except FileNotFoundError:
        raise BundleError(f"{path}: missing from the bundle; export or install it again") from None
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None
    if found != expected:
        raise BundleError(
            f"{path}: altered or cut short (its SHA-256 is not the one in config.json); export or install it again"
        )
