"""The few values that travel between layers: captions, records, decoding options and data set samples."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Literal, Self, TypedDict, TypeVar

from showtell.errors import ImageError, OptionError, RecordCode

Split = Literal["train", "dev", "test"]
AttentionMap = tuple[tuple[float, ...], ...]  # rows, top to bottom


Source = Literal["model", "labels"]
DOUBTFUL = 0.25  # a confidence below this is reported as doubtful
SURE = 0.95  # a label of at least this probability stands in for a doubtful caption that says something else


@dataclass(frozen=True, slots=True)
class Label:
    """A thing in a photo: its plain name, and the probability that people who describe the photo name it."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceOptions:
    """Options for doubtful captions and labels. Models without a confidence model ignore them.

    `evidence` searches again where the photo gives no evidence of a person or dog that the caption names. `fallback` puts a
    sure label in place of a doubtful caption that does not name it. A photo whose caption has a confidence below
    `min_confidence` gets none. With `labels`, records have the five likeliest labels.
    """

    evidence: bool = True
    fallback: bool = True
    min_confidence: float = 0.0
    labels: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise OptionError(f"min_confidence is {self.min_confidence!r}; it must be a number from 0 to 1")


def check_confidence(model: str, options: ConfidenceOptions | None) -> None:
    """Raises OptionError where the options need a confidence model, which the model of that name lacks."""
    if options and (options.labels or options.min_confidence):
        asked = "labels=True" if options.labels else f"min_confidence= {options.min_confidence:g}"
        raise OptionError(f"{asked} needs a bundle with a confidence part, and {model} has none; see `showtell calibrate`")


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption of one photo.

    `score` is the mean natural-log probability per token, end token included: 0 is certainty, lower is less sure.
    `alternatives` holds the further captions of an n-best request, best first. `pieces` is the text with one piece for each
    token; `cut` tells that it reached the length limit before its end. `confidence` is the probability that the caption is
    good, None where the model cannot tell. `source` is "labels" for a caption that names a sure label instead of the model's
    caption; its score and confidence are those of the label. A notebook shows the caption with its photo.
    """

    text: str
    score: float
    tokens: tuple[str, ...]
    alternatives: tuple["Caption", ...] = ()
    pieces: tuple[str, ...] = ()
    cut: bool = False
    photo: Any = field(default=None, repr=False, compare=False)  # its source, for notebooks
    confidence: float | None = None
    source: Source = "model"

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        from showtell.notebook import caption_html

        return caption_html(self)

    def to_json(self) -> dict[str, Any]:
        """The caption as it is in a record's list."""
        sure = {} if self.confidence is None else {"confidence": round(self.confidence, 4)}
        return {"text": self.text, "score": round(self.score, 6), **sure, **({"cut": True} if self.cut else {})}


@dataclass(frozen=True, slots=True)
class Description:
    """A model's description of one photo: captions, best first, and how far to trust them; see Record."""

    captions: tuple[Caption, ...]
    confidence: float | None = None
    in_domain: float | None = None
    labels: tuple[Label, ...] | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The captions of one photo, or its error: the same object in files, on standard output and in Python.

    `confidence` is that of the best caption, also where the status is "doubtful" and no caption was given for it. `in_domain`
    says how usual the photo is for the model, from 0 to 1; below 0.5 it is stranger than 99 of 100 training photos. Both are
    None where the model cannot tell. `labels`, if they were asked for, are the likeliest. `attention`, if it was asked for, has
    one map for each token of the best caption. A notebook shows the record with its photo, if `path` is a file.
    """

    path: str
    status: Literal["ok", "doubtful", "error"]
    captions: tuple[Caption, ...] = ()
    width: int | None = None
    height: int | None = None
    model: str | None = None
    error_code: RecordCode | None = None
    error_message: str | None = None
    attention: tuple[AttentionMap, ...] | None = None
    confidence: float | None = None
    in_domain: float | None = None
    labels: tuple[Label, ...] | None = None

    @classmethod
    def of(
        cls,
        path: str,
        found: Description,
        width: int | None,
        height: int | None,
        model: str,
        attention: tuple[AttentionMap, ...] | None = None,
    ) -> Self:
        """The record of a photo that was described."""
        status: Literal["ok", "doubtful"] = "ok" if found.captions else "doubtful"
        sure = (found.confidence, found.in_domain, found.labels)
        return cls(path, status, found.captions, width, height, model, None, None, attention, *sure)

    @classmethod
    def failed(cls, path: str, error: ImageError, model: str, *, remedy: bool = True) -> Self:
        """The record of a photo that could not be read; without `remedy`, the message is for people who only sent it."""
        message = str(error) if remedy else error.message
        return cls(path, "error", model=model, error_code=error.code, error_message=message)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The record whose `to_json` gave `values`; only the best caption has tokens, where attention was asked for."""
        error, maps = values.get("error") or {}, values.get("attention")
        captions = [
            Caption(item["text"], item["score"], (), cut=item.get("cut", False), confidence=item.get("confidence"))
            for item in values.get("captions", ())
        ]
        if captions:
            captions[0] = replace(captions[0], source=values.get("source", "model"))
        if maps is not None:
            captions[0] = replace(captions[0], tokens=tuple(values["tokens"]), pieces=tuple(values["pieces"]))
        return cls(
            values["path"],
            values["status"],
            tuple(captions),
            values.get("width"),
            values.get("height"),
            values.get("model"),
            error.get("code"),
            error.get("message"),
            None if maps is None else tuple(tuple(map(tuple, grid)) for grid in maps),
            values.get("confidence"),
            values.get("in_domain"),
            tuple(Label(**label) for label in values["labels"]) if "labels" in values else None,
        )

    @property
    def caption(self) -> str | None:
        """Text of the best caption, or None where the photo could not be read or its caption was too doubtful."""
        return self.captions[0].text if self.captions else None

    @property
    def source(self) -> Source | None:
        """The origin of the best caption, the model or a label; None where there is no caption."""
        return self.captions[0].source if self.captions else None

    @property
    def doubtful(self) -> bool:
        """Whether the photo's caption has a confidence below DOUBTFUL, or was left out for it."""
        return self.status == "doubtful" or (self.confidence is not None and self.confidence < DOUBTFUL)

    def _repr_html_(self) -> str:
        from showtell.notebook import record_html

        return record_html(self)

    def to_json(self) -> dict[str, Any]:
        """The record as the JSON object written to JSONL files."""
        result: dict[str, Any] = {"path": self.path, "status": self.status}
        if self.captions:
            result["caption"] = self.captions[0].text
            result["score"] = round(self.captions[0].score, 6)
            result["captions"] = [caption.to_json() for caption in self.captions]
            result["source"] = self.captions[0].source
        result |= {
            name: round(value, 4)
            for name, value in (("confidence", self.confidence), ("in_domain", self.in_domain))
            if value is not None
        }
        if self.labels is not None:
            result["labels"] = [{"name": label.name, "probability": round(label.probability, 4)} for label in self.labels]
        if self.width is not None:
            result["width"], result["height"] = self.width, self.height
        if self.model is not None:
            result["model"] = self.model
        if self.attention is not None:
            result["tokens"] = list(self.captions[0].tokens)
            result["pieces"] = list(self.captions[0].pieces)
            result["attention"] = [[[round(weight, 4) for weight in row] for row in part] for part in self.attention]
        if self.error_code is not None:
            result["error"] = {"code": self.error_code, "message": self.error_message}
        return result


def to_columns(records: Iterable[Record]) -> dict[str, list[Any]]:
    """The columns of a table with one row a record, for `Dataset.map` of datasets and for pandas.

    `caption` and `score` are of the best caption, `captions` has all, and `error` is the code of a photo without one.
    """
    rows = list(records)
    return {
        "caption": [record.caption for record in rows],
        "score": [record.captions[0].score if record.captions else None for record in rows],
        "captions": [[caption.text for caption in record.captions] for record in rows],
        "error": [record.error_code for record in rows],
    }


@dataclass(frozen=True, slots=True)
class Sample:
    """One photo of a data set: its file name, its reference captions, its split and its captions' style, if any."""

    image: str
    captions: tuple[str, ...]
    split: Split | None
    style: str = ""


_T = TypeVar("_T")


def from_json(kind: type[_T], values: Mapping[str, Any], what: str) -> _T:
    """A dataclass from a JSON object, whose lists become tuples. Raises OptionError for an unknown key, named `what`."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    if unknown := sorted(set(values) - set(known)):
        raise OptionError(f"unknown {what} {unknown[0]!r}; known are {', '.join(known)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


TOP_P = 0.6  # samples from all words, 1.0, are hardly ever sentences
MOST_INCLUDED = 4  # words; the search follows up to 2 ** 4 beams for them


def _option(
    default: Any, about: str, kind: type = str, low: float = 0, high: float = 0, served: float = 0, flag: str = ""
) -> Any:
    """A search option: what it is, its type, its limits, and the largest value that a request to the service may have.

    The limit of a tuple of words is their number. `flag` is its name on the command line, where that is another.
    """
    return field(
        default=default, metadata={"about": about, "kind": kind, "low": low, "high": high, "served": served, "flag": flag}
    )


def _word_list(name: str, value: Any, most: int) -> tuple[str, ...]:
    """The words of an option: a string with commas between them, or a list of such. Raises OptionError."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not all(isinstance(each, str) for each in values):
        raise OptionError(f"{name} is {value!r}; it must be a word, several with commas between them, or a list of words")
    words = dict.fromkeys(word.strip() for each in values for word in each.split(",") if word.strip())
    if len(words) > most:
        raise OptionError(f"{name} is {', '.join(words)}; it may have {most} words at most")
    return tuple(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How captions are searched for. Lengths count words, the end token not included.

    Hypotheses rank by their sum of log-probabilities divided by `(words + 1) ** length_penalty`.
    `no_repeat_ngram` n forbids any n-gram of words to occur twice in a caption; 0 allows all. `no_repeat_words` forbids a word
    twice in a row and on both sides of "and", and twice in a caption unless people repeat it too: function words and those of
    two things in one photo (`text.words`). `style` is one of the model's caption styles, its default where it is empty.

    Captions begin with the words `start_with`, contain every word of `include` as it is written and no word of `avoid` nor its
    plural, and have at least `min_length` words. `include` and `avoid` may also be one string with commas. An element of
    several words, such as "fire truck", is included or avoided as a phrase. With `include` the search is a constrained beam
    search; samples cannot include words. The model must know the words: `Captioner.options` checks it.

    The fields' metadata has each option's description and limits, for the command line and the service.
    """

    beam_size: int = _option(3, "Hypotheses of the beam search; 1 is greedy search.", int, 1, 1000, 10)
    num_captions: int = _option(1, "Captions of each photo, best first.", int, 1, 10_000, 10)
    max_length: int = _option(20, "Longest caption in words.", int, 1, 1000, 40)
    length_penalty: float = _option(1.0, "0 ranks by total log-probability, 1 by its mean.", float, 0, 10, 10)
    no_repeat_ngram: int = _option(0, "Never repeat N words in a row; 0 allows it.", int, 0, 1000, 10)
    no_repeat_words: bool = _option(False, "Never repeat a word, except those that people repeat.", bool)
    style: str = _option("", "One of the model's caption styles, such as coco.")
    start_with: str = _option("", "Begin each caption with these words, such as 'a photo of'.")
    include: tuple[str, ...] = _option((), "Say this word in each caption.", tuple, 0, MOST_INCLUDED, 2, "include-word")
    avoid: tuple[str, ...] = _option((), "Never say this word or its plural.", tuple, 0, 100, 100)
    min_length: int = _option(0, "Shortest caption in words.", int, 0, 1000, 40)
    sample: bool = _option(False, "Sample captions at random instead of searching.", bool)
    temperature: float = _option(1.0, "Of samples: below 1 safer, above 1 more varied.", float, 0.01, 100)
    top_p: float = _option(TOP_P, "Of samples: from the likeliest words of total probability P.", float, 0.001, 1)
    seed: int | None = _option(None, "Of samples: the same seed gives the same captions.", int, 0, 2**64 - 1)

    def __post_init__(self) -> None:
        for option in fields(self):
            name, value, kind = option.name, getattr(self, option.name), option.metadata["kind"]
            if kind is tuple:
                object.__setattr__(self, name, _word_list(name, value, option.metadata["high"]))
            if kind is str and not isinstance(value, str):
                raise OptionError(f"{name} is {value!r}; it must be text")
            if kind not in (int, float) or (name == "seed" and value is None):
                continue
            low, high = option.metadata["low"], option.metadata["high"]
            number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                what = "a whole number" if kind is int else "a number"
                raise OptionError(f"{name} is {value!r}; it must be {what} from {low:,} to {high:,}")
        if not isinstance(self.sample, bool):
            raise OptionError(f"sample is {self.sample!r}; it must be True or False")
        if not self.sample and self.num_captions > self.beam_size:
            raise OptionError(
                f"num_captions {self.num_captions} is more than beam_size {self.beam_size}: a beam search finds at most as "
                "many captions as it has beams; raise beam_size, or draw them with sample=True"
            )
        if self.sample and self.include:
            raise OptionError("include= acts on beam search and not on samples: leave sample=True out")
        if self.min_length > self.max_length:
            raise OptionError(f"min_length is {self.min_length} and max_length {self.max_length}; raise max_length")
        if not self.sample and (self.temperature != 1 or self.top_p not in (1, TOP_P) or self.seed is not None):
            raise OptionError("temperature=, top_p= and seed= act on sampling alone: add sample=True")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Options from a bundle's `search` object. Raises OptionError for a key it does not know."""
        unknown = set(values) - set(cls.__slots__)
        if unknown:
            raise OptionError(f"unknown search option {sorted(unknown)[0]!r}; known are {', '.join(cls.__slots__)}")
        # What samples were drawn from by default in other versions is no choice of a model that searches.
        kept = {key: value for key, value in values.items() if key != "top_p" or values.get("sample") or value != 1}
        return cls(**kept)

    def updated(self, **changes: Any) -> Self:
        """A copy with every change that is not None applied. A beam below `num_captions` is widened to it."""
        given = {key: value for key, value in changes.items() if value is not None}
        unknown = set(given) - set(self.__slots__)
        if unknown:
            raise OptionError(f"unknown search option {sorted(unknown)[0]!r}; known are {', '.join(self.__slots__)}")
        beam, captions = (given.get(name, getattr(self, name)) for name in ("beam_size", "num_captions"))
        numbers = isinstance(beam, int) and isinstance(captions, int)  # others are refused below
        if numbers and not given.get("sample", self.sample) and 1 <= beam < captions:
            given["beam_size"] = captions
        return replace(self, **given)


class SearchOptions(TypedDict, total=False):
    """The fields of DecodeOptions as keyword arguments; None leaves an option as it is."""

    beam_size: int | None
    num_captions: int | None
    max_length: int | None
    length_penalty: float | None
    no_repeat_ngram: int | None
    no_repeat_words: bool | None
    style: str | None
    start_with: str | None
    include: str | Sequence[str] | None
    avoid: str | Sequence[str] | None
    min_length: int | None
    sample: bool | None
    temperature: float | None
    top_p: float | None
    seed: int | None
