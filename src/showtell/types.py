"""The few values that travel between layers: captions, records, decoding options and data set samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from showtell.errors import ImageCode, OptionError

Split = Literal["train", "dev", "test"]
AttentionMap = tuple[tuple[float, ...], ...]  # 7 rows of 7, top to bottom


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption of one photo.

    `score` is the mean natural-log probability per token, end token included: 0 is certainty, lower is less sure.
    `alternatives` holds the further captions of an n-best request, best first.
    """

    text: str
    score: float
    tokens: tuple[str, ...]
    alternatives: tuple["Caption", ...] = ()

    def __str__(self) -> str:
        return self.text


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
    error_code: ImageCode | None = None
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
            result["captions"] = [{"text": c.text, "score": round(c.score, 6)} for c in self.captions]
        if self.width is not None:
            result["width"], result["height"] = self.width, self.height
        if self.model is not None:
            result["model"] = self.model
        if self.attention is not None:
            result["tokens"] = list(self.captions[0].tokens)
            result["attention"] = [[[round(weight, 4) for weight in row] for row in part] for part in self.attention]
        if self.error_code is not None:
            result["error"] = {"code": self.error_code, "message": self.error_message}
        return result


@dataclass(frozen=True, slots=True)
class Sample:
    """One photo of a data set: its file name, its reference captions as written, and its split."""

    image: str
    captions: tuple[str, ...]
    split: Split | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How captions are searched for. Lengths count words, the end token not included.

    Hypotheses rank by their sum of log-probabilities divided by `(words + 1) ** length_penalty`.
    `no_repeat_ngram` n forbids any n-gram of words to occur twice in a caption; 0 allows all. `no_repeat_words` forbids a word
    twice in a row and on both sides of "and", and twice in a caption unless people repeat it too: function words and those of
    two things in one photo (`text.words`).
    """

    beam_size: int = 3
    num_captions: int = 1
    max_length: int = 20
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    no_repeat_words: bool = False
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        checks = (
            ("beam_size", self.beam_size >= 1, "at least 1"),
            ("num_captions", self.num_captions >= 1, "at least 1"),
            ("max_length", self.max_length >= 1, "at least 1"),
            ("length_penalty", self.length_penalty >= 0, "0 or more"),
            ("no_repeat_ngram", self.no_repeat_ngram >= 0, "0 (off) or more"),
            ("temperature", self.temperature > 0, "more than 0"),
            ("top_p", 0 < self.top_p <= 1, "more than 0 and at most 1"),
        )
        for name, good, allowed in checks:
            if not good:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be {allowed}")
        if not self.sample and self.num_captions > self.beam_size:
            raise OptionError(
                f"num_captions {self.num_captions} is more than beam_size {self.beam_size}: a beam search finds at most as "
                "many captions as it has beams; raise the beam size or sample"
            )
        if not self.sample and (self.temperature != 1 or self.top_p != 1 or self.seed is not None):
            raise OptionError("temperature, top_p and seed only act on sampling: set sample too")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Options from a bundle's `search` object. Raises OptionError for a key it does not know."""
        unknown = set(values) - set(cls.__slots__)
        if unknown:
            raise OptionError(f"unknown search option {sorted(unknown)[0]!r}; known are {', '.join(cls.__slots__)}")
        return cls(**values)

    def updated(self, **changes: Any) -> Self:
        """A copy with every change that is not None applied; asking for n captions widens the beam to n when it must."""
        given = {key: value for key, value in changes.items() if value is not None}
        unknown = set(given) - set(self.__slots__)
        if unknown:
            raise OptionError(f"unknown search option {sorted(unknown)[0]!r}; known are {', '.join(self.__slots__)}")
        if not given.get("sample", self.sample) and "beam_size" not in given:
            given["beam_size"] = max(self.beam_size, given.get("num_captions", self.num_captions))
        return replace(self, **given)
