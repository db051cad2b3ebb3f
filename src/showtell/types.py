"""The few values that travel between layers: captions, records, decoding options and data set samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal, Self

from showtell.errors import OptionError, RecordCode

Split = Literal["train", "dev", "test"]
AttentionMap = tuple[tuple[float, ...], ...]  # 7 rows of 7, top to bottom


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption of one photo.

    `score` is the mean natural-log probability per token, end token included: 0 is certainty, lower is less sure.
    `alternatives` holds the further captions of an n-best request, best first. `pieces` is the text with one piece for each
    token; `cut` says that it reached the length limit before its end.
    """

    text: str
    score: float
    tokens: tuple[str, ...]
    alternatives: tuple["Caption", ...] = ()
    pieces: tuple[str, ...] = ()
    cut: bool = False

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """The caption as it is in a record's list."""
        return {"text": self.text, "score": round(self.score, 6), **({"cut": True} if self.cut else {})}


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one photo: the same object in files, on standard output and in Python.

    `attention`, where it was asked for, has one map for each token of the best caption.
    """

    path: str
    status: Literal["ok", "error"]
    captions: tuple[Caption, ...] = ()
    width: int | None = None
    height: int | None = None
    model: str | None = None
    error_code: RecordCode | None = None
    error_message: str | None = None
    attention: tuple[AttentionMap, ...] | None = None

    @property
    def caption(self) -> str | None:
        """Text of the best caption, or None where the photo could not be read."""
        return self.captions[0].text if self.captions else None

    def to_json(self) -> dict[str, Any]:
        """The record as the JSON object written to JSONL files."""
        result: dict[str, Any] = {"path": self.path, "status": self.status}
        if self.captions:
            result["caption"] = self.captions[0].text
            result["score"] = round(self.captions[0].score, 6)
            result["captions"] = [caption.to_json() for caption in self.captions]
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


@dataclass(frozen=True, slots=True)
class Sample:
    """One photo of a data set: its file name, its reference captions, its split and its captions' style, if any."""

    image: str
    captions: tuple[str, ...]
    split: Split | None
    style: str = ""


TOP_P = 0.6  # samples from all words, 1.0, are hardly ever sentences
_LIMITS: dict[str, tuple[Any, float, float]] = {
    "beam_size": (Integral, 1, 1000),
    "num_captions": (Integral, 1, 10_000),
    "max_length": (Integral, 1, 1000),
    "length_penalty": (Real, 0, 10),
    "no_repeat_ngram": (Integral, 0, 1000),  # 0 is off
    "temperature": (Real, 0.01, 100),
    "top_p": (Real, 0.001, 1),
    "seed": (Integral, 0, 2**64 - 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How captions are searched for. Lengths count words, the end token not included.

    Hypotheses rank by their sum of log-probabilities divided by `(words + 1) ** length_penalty`.
    `no_repeat_ngram` n forbids any n-gram of words to occur twice in a caption; 0 allows all. `no_repeat_words` forbids a word
    twice in a row and on both sides of "and", and twice in a caption unless people repeat it too: function words and those of
    two things in one photo (`text.words`). `style` is one of the model's caption styles, its default where it is empty.
    """

    beam_size: int = 3
    num_captions: int = 1
    max_length: int = 20
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    no_repeat_words: bool = False
    style: str = ""
    sample: bool = False
    temperature: float = 1.0
    top_p: float = TOP_P
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, (kind, low, high) in _LIMITS.items():
            value = getattr(self, name)
            good = isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high
            if not good and not (name == "seed" and value is None):
                what = "a whole number" if kind is Integral else "a number"
                raise OptionError(f"{name} is {value!r}; it must be {what} from {low:,} to {high:,}")
        if not isinstance(self.sample, bool):
            raise OptionError(f"sample is {self.sample!r}; it must be True or False")
        if not self.sample and self.num_captions > self.beam_size:
            raise OptionError(
                f"num_captions {self.num_captions} is more than beam_size {self.beam_size}: a beam search finds at most as "
                "many captions as it has beams; raise beam_size, or draw them with sample=True"
            )
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
        """A copy with every change that is not None applied; asking for n captions widens the beam to n when it must."""
        given = {key: value for key, value in changes.items() if value is not None}
        unknown = set(given) - set(self.__slots__)
        if unknown:
            raise OptionError(f"unknown search option {sorted(unknown)[0]!r}; known are {', '.join(self.__slots__)}")
        if not given.get("sample", self.sample) and "beam_size" not in given:
            given["beam_size"] = max(self.beam_size, given.get("num_captions", self.num_captions))
        return replace(self, **given)
