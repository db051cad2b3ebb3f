"""The JSON of requests and answers, as OpenAPI describes it. Records are `types.Record.to_json`."""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model

from showtell.errors import OptionError
from showtell.serve.errors import CODES
from showtell.serve.models import Model, Wanted
from showtell.types import ConfidenceOptions, DecodeOptions, check_confidence


def _at_commas(values: Any) -> Any:
    """Texts with commas between words as separate words."""
    return [word for value in values for word in value.split(",")] if isinstance(values, list) else values


# The search options that requests may set; sampling is for the command line and Python.
SERVED = (
    *("num_captions", "beam_size", "max_length", "length_penalty", "no_repeat_ngram", "no_repeat_words", "style"),
    *("start_with", "include", "avoid", "min_length"),
)
_TEXT = 100  # characters of a text at most
_Words = Annotated[list[Annotated[str, StringConstraints(max_length=_TEXT)]], BeforeValidator(_at_commas)]


def _search_fields() -> dict[str, Any]:
    """A field for each option of SERVED, with the service's limits, and `attention`."""
    options = {option.name: option.metadata for option in fields(DecodeOptions)}
    found: dict[str, Any] = {}
    for name in SERVED:
        about, kind, low, served = (options[name][key] for key in ("about", "kind", "low", "served"))
        limits: dict[str, Any] = {}
        if kind in (int, float):
            limits = {"ge": low, "le": served}
        elif kind in (str, tuple):
            limits = {"max_length": served if kind is tuple else _TEXT}
        found[name] = ((_Words if kind is tuple else kind) | None, Field(None, description=about, **limits))
    found["labels"] = (bool, Field(False, description="Add the five likeliest labels, with probabilities."))
    found["fallback"] = (bool, Field(True, description="Put a sure label in place of a doubtful caption."))
    found["min_confidence"] = (float, Field(0.0, description="Give no caption of a lower confidence.", ge=0, le=1))
    found["attention"] = (bool, Field(False, description="Add the attention map of each word of the best caption."))
    return found


class _Query(BaseModel):
    """Query parameters of the caption routes. Those not given are the model's own."""

    model_config = ConfigDict(extra="forbid")

    if TYPE_CHECKING:  # the last of the fields below
        attention: bool
        labels: bool
        fallback: bool
        min_confidence: float

    def wanted(self, model: Model) -> Wanted:
        """The model's search options with the given ones. Raises OptionError for options that it lacks."""
        if self.attention and not model.attends:
            raise OptionError(f"attention: {model.name} gives no attention maps; leave attention out")
        own = {"attention", "labels", "fallback", "min_confidence"}
        options = model.options(**self.model_dump(exclude=own, exclude_none=True))
        trust = ConfidenceOptions(labels=self.labels, fallback=self.fallback, min_confidence=self.min_confidence)
        if not model.has_confidence:
            check_confidence(model.name, trust)
        return Wanted(options, trust, self.attention)


CaptionQuery: Any = create_model("CaptionQuery", __base__=_Query, __doc__=_Query.__doc__, **_search_fields())


class ErrorObject(BaseModel):
    """What went wrong: a code for programs, a message for people."""

    code: str = Field(json_schema_extra={"enum": list(CODES)})
    message: str


class RecordCaption(BaseModel):
    """One caption; `score` is the mean log-probability per token, end token included."""

    text: str
    score: float
    confidence: float | None = Field(None, description="The probability that the caption is good; see docs/confidence.md.")
    cut: bool | None = Field(None, description="True where it reached `max_length` before its end; else absent.")


class RecordLabel(BaseModel):
    """A thing that the photo may show, and its probability."""

    name: str
    probability: float


class RecordObject(BaseModel):
    """What became of one photo. Fields that do not apply are absent."""

    path: str = Field(description="The file name that the client gave, or photo-1, photo-2, ...")
    status: Literal["ok", "doubtful", "error"]
    caption: str | None = None
    score: float | None = None
    source: Literal["model", "labels"] | None = Field(
        None, description="`labels`: names a sure label, as the caption is doubtful."
    )
    confidence: float | None = Field(None, description="The probability that the best caption is good.")
    in_domain: float | None = Field(None, description="How usual the photo is for the model, from 0 to 1.")
    labels: list[RecordLabel] | None = Field(None, description="The five likeliest, where they were asked for.")
    captions: list[RecordCaption] | None = Field(None, description="Best first.")
    width: int | None = Field(None, description="Of the photo, upright.")
    height: int | None = None
    model: str | None = None
    tokens: list[str] | None = Field(None, description="Words of the best caption, where attention was asked for.")
    pieces: list[str] | None = Field(None, description="What each token adds to the caption: joined, they are its text.")
    attention: list[list[list[float]]] | None = Field(
        None, description="For each token a map of 8 rows of 8, say; each sums to 1."
    )
    error: ErrorObject | None = None


class CaptionsAnswer(BaseModel):
    """Records in the order in which the photos were sent."""

    results: list[RecordObject]
    model: str


class ErrorBody(BaseModel):
    """Every error. Where several photos were sent and none could be read, `error` is the first one's and `results` has all."""

    error: ErrorObject
    results: list[RecordObject] | None = None


class Limits(BaseModel):
    """What is taken of one request."""

    max_photos: int
    max_stream_photos: int
    max_photo_bytes: int
    max_body_bytes: int
    max_stream_bytes: int
    max_pixels: int


class ModelCard(BaseModel):
    """The model that answers: of a bundle what its config.json says, less how it was trained."""

    name: str
    licence: str | None = None
    data: str | None = None
    quantization: str | None = None
    vocabulary: int | None = Field(None, description="Words, special ones left out; absent where no bundle answers.")
    scores: dict[str, dict[str, float]] = Field(
        description="Metrics x100 on the dev photos of each data set; empty where nobody kept them."
    )
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    search: dict[str, Any] = Field(description="What is used where a request says nothing.")
    limits: Limits
    version: str = Field(description="Of showtell.")


class Health(BaseModel):
    """`ok`, or the reason why not."""

    status: str
